//go:build !linux

package watchdog

import "os/exec"

func look(int) sample { return sample{} }

func kill(*exec.Cmd) {}
