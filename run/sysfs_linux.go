//go:build linux && (amd64 || arm64)

package run

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"udm/blk"
	"udm/ctl"
	"udm/run/blkioctl"
	"udm/run/devfs"
)

// refresh brings /proc and /sys up to date before a program looks at them, and the nodes
// of /dev that the kernel itself would make.
func (s *session) refresh(shown string) {
	if !strings.HasPrefix(shown, "/sys/") && shown != "/proc/partitions" {
		return
	}
	list := s.devices.all()
	s.showing.Lock()
	defer s.showing.Unlock()
	if len(list) == 0 || len(s.shownList) == 0 || &list[0] != &s.shownList[0] {
		s.show(list)
		s.shownList = list
	}
}

// sysDevice is a block device in /sys.
type sysDevice struct {
	name   string
	n      blk.Number
	d      blkioctl.Device
	files  map[string]string // further ones, by path
	slaves []string
}

// show writes /proc and /sys for a list of devices, with showing held.
func (s *session) show(list []ctl.Device) {
	var all []sysDevice
	for _, k := range s.disks {
		all = append(all, s.sysDisk(k))
	}
	for _, v := range list {
		all = append(all, s.sysMapped(v, list))
	}
	partitions := "major minor  #blocks  name\n\n"
	var names []string
	for _, d := range all {
		partitions += fmt.Sprintf("%4d  %7d %10d %s\n", d.n.Major, d.n.Minor, d.d.Size/1024, d.name)
		names = append(names, d.name)
		s.failed("/sys", s.showDevice(d))
	}
	for _, d := range all {
		for _, slave := range d.slaves {
			s.failed("/sys", s.tree.Link(block+slave+"/holders/"+d.name, "../../"+d.name))
		}
	}
	all = append(all, s.showOthers(list)...)
	s.failed("/proc", s.tree.Put("/proc/partitions", partitions))
	s.hideOthers(names, all)
}

// showOthers gives names to what else tables use, such as memory and NBD servers.
func (s *session) showOthers(list []ctl.Device) (others []sysDevice) {
	for _, v := range list {
		for _, dep := range v.Deps {
			n := blk.Number(dep.Number)
			if dep.Map == "" && s.disks.number(n) == nil {
				s.failed("/sys", s.tree.Link("/sys/dev/block/"+n.String(), "../../devices/virtual/block/"+dep.Name))
				others = append(others, sysDevice{name: dep.Name, n: n})
			}
		}
	}
	return others
}

const block = "/sys/devices/virtual/block/"

func (s *session) sysDisk(k *disk) sysDevice {
	var size uint64
	if st, err := os.Stat(k.path); err == nil {
		size = uint64(st.Size())
	}
	return sysDevice{name: k.Name, n: k.n, d: diskDevice(size)}
}

func (s *session) sysMapped(v ctl.Device, list []ctl.Device) sysDevice {
	out := sysDevice{name: mappedName(blk.Number(v.Number)), n: blk.Number(v.Number), d: mappedDevice(v),
		files: map[string]string{"dm/name": v.Name, "dm/uuid": v.UUID, "dm/suspended": digit(v.Suspended)}}
	for _, dep := range v.Deps {
		if k := s.disks.number(blk.Number(dep.Number)); k != nil {
			out.slaves = append(out.slaves, k.Name)
		} else if slices.ContainsFunc(list, func(o ctl.Device) bool { return o.Number == dep.Number }) {
			out.slaves = append(out.slaves, mappedName(blk.Number(dep.Number)))
		}
	}
	return out
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// attributes are the files of a device.
func (d sysDevice) attributes() map[string]string {
	files := map[string]string{
		"dev": d.n.String(), "size": fmt.Sprint(d.d.Size / blk.SectorSize), "ro": digit(d.d.ReadOnly), "removable": "0", "hidden": "0",
		"range": "1", "ext_range": "1", "capability": "0", "alignment_offset": "0", "discard_alignment": "0",
		"stat":   strings.Repeat("       0 ", 17),
		"uevent": fmt.Sprintf("MAJOR=%d\nMINOR=%d\nDEVNAME=%s\nDEVTYPE=disk", d.n.Major, d.n.Minor, d.name),
	}
	for name, value := range map[string]any{
		"logical_block_size": d.d.LogicalBlock, "hw_sector_size": d.d.LogicalBlock, "physical_block_size": d.d.PhysicalBlock,
		"minimum_io_size": d.d.MinIO, "optimal_io_size": d.d.OptIO, "discard_granularity": d.d.DiscardGranularity,
		"discard_max_bytes": discardMax(d.d), "discard_zeroes_data": 0, "rotational": digit(d.d.Rotational), "zoned": "none", "dax": 0,
		"read_ahead_kb": 128, "scheduler": "none", "nr_requests": 128, "max_sectors_kb": 1280, "write_same_max_bytes": 0, "write_zeroes_max_bytes": 0,
	} {
		files["queue/"+name] = fmt.Sprint(value)
	}
	maps.Copy(files, d.files)
	return files
}

func discardMax(d blkioctl.Device) int {
	if d.DiscardGranularity == 0 {
		return 0
	}
	return 2147450880
}

func (s *session) showDevice(d sysDevice) error {
	dir := block + d.name
	for file, content := range d.attributes() {
		if err := s.tree.Put(dir+"/"+file, content+"\n"); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{
		{"/sys/block/" + d.name, "../devices/virtual/block/" + d.name},
		{"/sys/class/block/" + d.name, "../../devices/virtual/block/" + d.name},
		{"/sys/dev/block/" + d.n.String(), "../../devices/virtual/block/" + d.name},
		{dir + "/subsystem", "../../../../class/block"},
	} {
		if err := s.tree.Link(l[0], l[1]); err != nil {
			return err
		}
	}
	return s.showRelations(dir, d)
}

// showRelations makes the folders of the devices below and above; the latter is filled
// by the devices above.
func (s *session) showRelations(dir string, d sysDevice) error {
	for _, folder := range []string{"slaves", "holders"} {
		for _, name := range s.tree.Names(dir + "/" + folder) {
			if err := s.tree.Remove(dir + "/" + folder + "/" + name); err != nil {
				return err
			}
		}
		if err := s.tree.Mkdir(dir + "/" + folder); err != nil {
			return err
		}
	}
	for _, slave := range d.slaves {
		if err := s.tree.Link(dir+"/slaves/"+slave, "../../"+slave); err != nil {
			return err
		}
	}
	return nil
}

// hideOthers removes devices that are gone.
func (s *session) hideOthers(names []string, all []sysDevice) {
	numbers := make(map[string]bool)
	for _, d := range all {
		numbers[d.n.String()] = true
	}
	for _, dir := range []string{block, "/sys/block/", "/sys/class/block/"} {
		for _, name := range s.tree.Names(dir[:len(dir)-1]) {
			if !slices.Contains(names, name) {
				s.failed("/sys", s.tree.Remove(dir+name))
			}
		}
	}
	for _, n := range s.tree.Names("/sys/dev/block") {
		if !numbers[n] {
			s.failed("/sys", s.tree.Remove("/sys/dev/block/"+n))
		}
	}
}

// hideNode removes the node that the kernel would remove with a device.
func (s *session) hideNode(n blk.Number) {
	s.failed("/dev", s.tree.Remove("/dev/"+mappedName(n)))
}

func (s *session) nodeFor(n blk.Number) devfs.Node { return devfs.Node{Number: n, Mode: nodeMode} }

// showNodes makes the nodes of the devices that are there before the program starts.
func (s *session) showNodes(list []ctl.Device) error {
	err := s.tree.SetNode("/dev/mapper/control", controlNode)
	for _, k := range s.disks {
		if err == nil {
			err = s.tree.SetNode("/dev/"+k.Name, s.nodeFor(k.n))
		}
	}
	for _, v := range list {
		n := blk.Number(v.Number)
		if err == nil {
			err = s.tree.SetNode("/dev/"+mappedName(n), s.nodeFor(n))
		}
		if err == nil {
			err = s.tree.SetNode("/dev/mapper/"+v.Name, s.nodeFor(n))
		}
	}
	return err
}

// showMajors writes /proc/devices and /proc/misc.
func (s *session) showMajors() error {
	devices := fmt.Sprintf("Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n 10 misc\n136 pts\n\nBlock devices:\n%3d loop\n%3d device-mapper\n", diskMajor, s.major)
	if err := s.tree.Put("/proc/devices", devices); err != nil {
		return err
	}
	return s.tree.Put("/proc/misc", fmt.Sprintf("%3d device-mapper\n229 fuse\n", controlNode.Number.Minor))
}
