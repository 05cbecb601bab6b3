package ublk

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A driver that refuses to prepare a device for another server, because the last one ended before its
// first command, has prepared it already. Other refusals are errors.
func TestRecoverPrepared(t *testing.T) {
	const flags = flagRecovery | flagReissue
	for _, c := range []struct {
		answers []error
		info    Info
		want    error
	}{
		{[]error{nil}, Info{}, nil},
		{[]error{unix.EBUSY, unix.EINTR, nil}, Info{}, nil},
		{[]error{unix.EINVAL}, Info{State: Quiesced, Flags: flags}, nil},
		{[]error{unix.EBUSY, unix.EINVAL}, Info{State: Quiesced, Flags: flags}, nil},
		{[]error{unix.EINVAL}, Info{State: Quiesced}, unix.EINVAL},
		{[]error{unix.EINVAL}, Info{State: Dead, Flags: flags}, unix.EINVAL},
		{[]error{unix.ENODEV}, Info{State: Quiesced, Flags: flags}, unix.ENODEV},
	} {
		n := 0
		d := &Control{do: func(_, nr, _ uint32, buf []byte, _ uint64) error {
			if nr == cmdGetInfo {
				copy(buf, c.info.encode())
				return nil
			}
			n++
			return c.answers[n-1]
		}}
		if err := d.Recover(0, time.Hour); !errors.Is(err, c.want) || n != len(c.answers) {
			t.Errorf("answers %v of %+v: %v after %d, want %v", c.answers, c.info, err, n, c.want)
		}
	}
}

func TestFaulty(t *testing.T) {
	for release, want := range map[string]bool{
		"6.12.95+deb12-cloud-amd64": true, "6.12.114": true, "6.12.115": false, "6.12.117+deb12-cloud-amd64": false,
		"6.1.0-57-cloud-amd64": false, "7.3.4": false, "6.12": false, "": false,
	} {
		if got := Faulty(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
