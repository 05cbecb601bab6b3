# 0, 1: linear and striped over two disks, the second of which has two copies
pvcreate -q $D0
pvcreate -q --pvmetadatacopies 2 $D1
vgcreate -q -s 256k --addtag group-tag lin-vg $D0 $D1
lvcreate -q -y -Wn -Zn -l 3 -n a lin-vg $D0
lvcreate -q -y -Wn -Zn -l 5 -n b-c --addtag one --addtag two.2 lin-vg $D0
lvextend -q -l +4 lin-vg/a $D1
lvcreate -q -y -Wn -Zn -i 2 -I 16k -l 8 -n striped lin-vg
lvextend -q -l +4 lin-vg/striped
fill lin--vg-a beginning 0
fill lin--vg-a end 27
fill lin--vg-b--c other 3
fill lin--vg-striped stripe 0
fill lin--vg-striped stripes 47
lvcreate -q -y -Wn -Zn -l 2 -n ro -p r lin-vg
lvcreate -q -y -an -Wn -Zn -l 2 -n off -k y lin-vg

# 2: snapshots, one that merges, and one of nothing
pvcreate -q $D2
vgcreate -q -s 64k snap $D2
lvcreate -q -y -Wn -Zn -L 4M -n base snap
lvcreate -q -y -Wn -Zn -L 4M -n undone snap
fill snap-base old 0
fill snap-base old 5
fill snap-undone old 1
lvcreate -q -y -s -L 512k -n s1 snap/base
lvcreate -q -y -s -L 512k -c 16k -n s-2 snap/base
lvcreate -q -y -s -L 512k -n back snap/undone
lvcreate -q -y --type snapshot -V 64M -L 512k -n virtual snap
fill snap-base new 5
fill snap-s1 own 7
fill snap-s--2 second 0
fill snap-undone new 1
fill snap-virtual somewhere 1000
fill snap-virtual here 2
vgchange -q -an snap
lvconvert -q --merge snap/back
vgchange -q -ay --poll n snap

# 3, 4, 5: an ignored area, and a disk without any
pvcreate -q $D3 $D4
pvcreate -q --pvmetadatacopies 0 $D5
vgcreate -q -s 64k --vgmetadatacopies 1 few $D3 $D4 $D5
lvcreate -q -y -Wn -Zn -l 300 -n wide few
fill few-wide wide 299
fill few-wide wide 20

# 6: a disk of no group
pvcreate -q $D6

answers plain lin-vg snap few
