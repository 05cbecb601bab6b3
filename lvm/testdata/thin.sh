# 0: thin pools
pvcreate -q $D0
vgcreate -q -s 64k thin $D0
lvcreate -q -y -Wn -Zn -L 2M -n ext thin
fill thin-ext external 3
lvchange -q -p r thin/ext
lvcreate -q -y --type thin-pool -L 8M --poolmetadatasize 2M -c 64k -n pool thin
lvcreate -q -y -V 16M -n t1 --thinpool pool thin
fill thin-t1 old 0
fill thin-t1 old 9
lvcreate -q -y -s -n t1snap thin/t1
fill thin-t1 new 9
lvchange -q -an thin/ext
lvcreate -q -y -s --thinpool pool -n onext thin/ext
fill thin-onext own 1
lvcreate -q -y --type thin-pool -L 4M --poolmetadatasize 2M -c 128k --discards ignore -Zn -n bare thin
lvchange -q --errorwhenfull y thin/bare
lvcreate -q -y --type thin-pool -L 4M --poolmetadatasize 2M -c 64k --discards nopassdown -n np thin
lvcreate -q -y -V 1G -n big --thinpool np thin
fill thin-big big 4
vgchange -q -an thin
vgchange -q -ay -K thin

# 1: a small area, through which long texts have gone round
pvcreate -q --dataalignment 64k $D1
vgcreate -q -s 64k wrap $D1
tags=
for i in $(seq 1000 1400); do tags="$tags --addtag tag-number-$i-of-many"; done
vgchange -q $tags wrap
for i in 1 2 3 4 5 6; do lvcreate -q -y -Wn -Zn -l $i -n v$i wrap; done

answers thin thin wrap
