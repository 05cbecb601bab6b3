//go:build unix

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestAgain: what the kernel's own fault has spoilt is undone and tried once more, and anything else is not tried again.
func TestAgain(t *testing.T) {
	other := errors.New("other")
	for name, c := range map[string]struct {
		ends  []error
		tries int
		want  error
	}{
		"well":       {[]error{nil}, 1, nil},
		"fault":      {[]error{&OwnFault{why: "child stopped with signal 18"}, nil}, 2, nil},
		"of several": {[]error{errors.Join(other, &OwnFault{}), nil}, 2, nil},
		"other":      {[]error{other}, 1, other},
		"then other": {[]error{&OwnFault{}, other}, 2, other},
	} {
		t.Run(name, func(t *testing.T) {
			disk, dir := diskFile(t, "disk", 1<<20), t.TempDir()
			tries := 0
			err := again(t, []string{disk, dir}, func() error {
				if st, err := os.Stat(disk); err != nil || st.Size() != 1<<20 {
					t.Errorf("try %d: the disk is not as it was: %v, %v", tries, st, err)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
					t.Errorf("try %d: the folder is not as it was: %v, %v", tries, left, err)
				}
				if err := errors.Join(os.WriteFile(disk, []byte("spoilt"), 0o600), os.WriteFile(filepath.Join(dir, "told"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				tries++
				return c.ends[tries-1]
			})
			if !errors.Is(err, c.want) || tries != c.tries {
				t.Errorf("%v after %d tries, want %v after %d", err, tries, c.want, c.tries)
			}
		})
	}
}

// TestOwnFault: the kernel's own faults are known by what it says, whatever else came of them.
func TestOwnFault(t *testing.T) {
	const said = "userspace - child stopped with signal 18"
	for console, want := range map[string]string{
		"[    9.1] " + said + "\nKernel panic - not syncing: Attempted to kill init!\n": "[    9.1] " + said,
		"Kernel panic - not syncing: sysrq triggered crash\n":                           "",
	} {
		_, err := collect(t.TempDir(), t.TempDir(), []byte(console), nil)
		var fault *OwnFault
		if errors.As(err, &fault) != (want != "") || fault != nil && fault.why != want {
			t.Errorf("%q is %v, want %q", console, err, want)
		}
	}
	var fault *OwnFault
	if _, err := collect(t.TempDir(), t.TempDir(), []byte(said), context.Canceled); errors.As(err, &fault) {
		t.Error("a boot that was ended has failed by itself")
	}
}
