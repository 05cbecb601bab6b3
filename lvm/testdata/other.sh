# 3 … 6: what needs other targets
pvcreate -q $D3 $D4 $D5 $D6
vgcreate -q -s 64k other $D3 $D4 $D5 $D6
new="lvcreate -q -y -Wn"
$new --type mirror -m 1 --mirrorlog disk --nosync -l 8 -n mirror other
$new --type mirror -m 1 --mirrorlog core --nosync -l 8 -n moved other
$new --type raid1 -m 1 --nosync -l 8 -n raid1 other
$new --type raid5 -i 2 --nosync -l 8 -n raid5 other
$new --type raid10 -i 2 -m 1 --nosync -l 8 -n raid10 other
$new --type raid0 -i 2 -l 8 -n raid0 other
$new -Zn -l 64 -n cached other
lvcreate -q -y --type cache-pool --poolmetadatasize 2M -L 4M --cachemode writeback --cachepolicy smq --cachesettings migration_threshold=4096 -n fast other
lvconvert -q -y --type cache --cachepool fast other/cached
$new -Zn -l 64 -n cached2 other
$new -Zn -L 12M -n fast2 other
lvconvert -q -y --type cache --cachevol fast2 --chunksize 512k other/cached2
$new -Zn -l 64 -n written other
$new -Zn -L 4M -n fast3 other
lvchange -q -an other/fast3 other/written
lvconvert -q -y --type writecache --cachevol fast3 --cachesettings 'high_watermark=60 low_watermark=40 autocommit_time=2000' other/written
$new --type raid1 -m 1 --raidintegrity y -l 64 -n sound other
$new --type error -l 4 -n broken other
$new --type zero -l 4 -n nought other
vgchange -q -an other
vgchange -q -ay other # in the order in which it is always done
for n in 1 2 3 4; do
	fill other-cached warm 1
	fill other-cached2 warm 7
	fill other-written late 3
done
answers other other
vgchange -q -an other

# 1, 2: what a missing disk leaves
pvcreate -q $D1 $D2
vgcreate -q -s 64k miss $D1 $D2
lvcreate -q -y -Wn -Zn -l 4 -n whole miss $D1
fill miss-whole whole 2
lvcreate -q -y -Wn -Zn -l 4 -n gone miss $D2
lvcreate -q -y -Wn -Zn -l 4 -n half miss $D1
lvextend -q -l +4 miss/half $D2
fill miss-half here 1
fill miss-half there 5
lvcreate -q -y -Wn -Zn -i 2 -I 4k -l 4 -n both miss
vgchange -q -an miss
CONFIG="--config devices{filter=[\"a|$D1|\",\"r|.*|\"]}"
vgchange -q -ay --activationmode partial $CONFIG miss
answers missing miss
vgchange -q -an $CONFIG miss
CONFIG=

