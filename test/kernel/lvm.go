package kernel

import "fmt"

// LVM is the begin of a script that runs lvm2 on the devices whose names begin with disks:
// its configuration, and nothing of the host's. More is further lines of the configuration.
func LVM(disks string, more ...string) string {
	text := `mkdir lvm
export LVM_SYSTEM_DIR=/run/home/lvm LVM_SUPPRESS_FD_WARNINGS=1
cat >lvm/lvm.conf <<CONF
` + fmt.Sprintf(`devices { filter=["a|%s|","r|.*|"] use_devicesfile=0 scan_lvs=0 md_component_detection=0 }
`, disks) + `global { use_lvmpolld=0 locking_dir="/run/lock-lvm" }
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
backup { backup=0 archive=0 }
`
	for _, line := range more {
		text += line + "\n"
	}
	return text + "CONF\n"
}
