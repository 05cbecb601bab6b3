package dm

import "syscall"

type statsRef struct{}

func (p *piece) beginStats() {}
func (p *piece) endStats()   {}

func (d *Device) statsMessage(args []string) (string, error) {
	return "", Errorf(syscall.EINVAL, "unknown message %s", args[0])
}
