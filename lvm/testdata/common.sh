# What stands before each of the scripts plain.sh, thin.sh and other.sh: they make volume
# groups with lvm2 in a real kernel, on the disks $D0, $D1 and so on, and keep what lvm2
# and the kernel say about them. TestKernelGolden runs them, behind lvm2's configuration.
fields=vg_name,lv_name,lv_uuid,lv_attr,lv_size,seg_type,origin,pool_lv,data_lv,metadata_lv,lv_health_status,lv_tags,chunk_size,stripes,devices

# fill DEVICE WORD N: the word, again and again, from the Nth 64 KiB of a volume on
fill() { yes "$2" | head -c 65536 | dd of="/dev/mapper/$1" bs=64k seek="$3" conv=fsync,notrunc 2>/dev/null; }

# sums NAME: checksums of what can be read of the first 4 MiB of all devices
sums() {
	for d in $(dmsetup info -c --noheadings -o name); do
		if head -c 4194304 "/dev/mapper/$d" >sum 2>/dev/null; then echo "$d $(sha256sum <sum | cut -d' ' -f1)"; fi
	done >"$OUT/$1.sums"
}

# answers NAME VG…: what lvm2 and the kernel say about groups whose volumes are active
answers() {
	name=$1; shift
	sums "$name"
	dmsetup table >"$OUT/$name.table"
	dmsetup info -c --noheadings --separator ' ' -o major,minor,name,uuid,attr >"$OUT/$name.numbers"
	lvs -a -o $fields --units s --nosuffix --noheadings --separator '|' $CONFIG "$@" >"$OUT/$name.lvs"
	pvs -a -o pv_name,pv_uuid,vg_name,pv_size,pv_missing,pv_mda_count,pv_mda_used_count,pv_pe_count,pv_pe_alloc_count,pe_start \
		--units s --nosuffix --noheadings --separator '|' $CONFIG >"$OUT/$name.pvs"
	vgs -o vg_name,vg_uuid,vg_attr,vg_seqno,vg_extent_size,vg_extent_count,vg_free_count,vg_tags,vg_mda_count,vg_mda_used_count,vg_missing_pv_count \
		--units s --nosuffix --noheadings --separator '|' $CONFIG "$@" >"$OUT/$name.vgs"
}
CONFIG=

