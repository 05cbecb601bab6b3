//go:build amd64 || arm64 || riscv64 || loong64 || 386 || arm

package kernel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"

	"udm/internal/nbd/proto"
)

// raw is the bytes of a text of hexadecimal digits, without what follows a # in a line.
func raw(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	p, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const family = 0x1b

func TestRequests(t *testing.T) {
	connect := Config{Index: -1, Size: 32 << 20, Block: 4096, Flags: proto.FlagHasFlags | proto.FlagFlush | proto.FlagMultiConn,
		Backend: "dm-12", Socket: 3}
	at := connect
	at.Index, at.Backend, at.Wait = 7, "dm-1234", 60
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"getfamily", request(ctrlFamily, ctrlGetFamily, ctrlVersion, 1, attrString(nil, ctrlFamilyName, "nbd")), `
			1c000000 1000 0500 01000000 00000000 # REQUEST|ACK
			03 01 0000
			0800 0200 6e626400 # nbd`},
		{"connect", request(family, cmdConnect, driverVersion, 2, connect.connectAttrs()), `
			54000000 1b00 0500 02000000 00000000
			01 01 0000
			0c00 0200 0000000200000000
			0c00 0300 0010000000000000
			0c00 0500 0500000000000000 # one connection
			1000 0780 0c00 0180 0800 0100 03000000
			0a00 0a00 646d2d313200 0000`},
		{"reconnect", request(family, cmdReconfigure, driverVersion, 6, at.reconnectAttrs()), `
			44000000 1b00 0500 06000000 00000000
			03 01 0000
			0800 0100 07000000
			0c00 0200 0000000200000000
			1000 0780 0c00 0180 0800 0100 03000000
			0c00 0a00 646d2d3132333400`},
		{"connect at an index, to wait", request(family, cmdConnect, driverVersion, 0x01020304, at.connectAttrs()), `
			68000000 1b00 0500 04030201 00000000
			01 01 0000
			0800 0100 07000000
			0c00 0200 0000000200000000
			0c00 0300 0010000000000000
			0c00 0500 0500000000000000
			0c00 0800 3c00000000000000
			1000 0780 0c00 0180 0800 0100 03000000
			0c00 0a00 646d2d3132333400`},
		{"resize", request(family, cmdReconfigure, driverVersion, 3, resizeAttrs(7, 1<<40, "dm-1")), `
			34000000 1b00 0500 03000000 00000000
			03 01 0000
			0800 0100 07000000
			0c00 0200 0000000000010000
			0900 0a00 646d2d3100 000000`},
		{"disconnect", request(family, cmdDisconnect, driverVersion, 4, attr32(nil, attrIndex, 7)), `
			1c000000 1b00 0500 04000000 00000000
			02 01 0000
			0800 0100 07000000`},
	} {
		if want := raw(t, test.want); !bytes.Equal(test.got, want) {
			t.Errorf("%s:\n%x, want\n%x", test.name, test.got, want)
		}
	}
}

// Messages that answers are made of; all with sequence number 5.
const (
	indexReply = `
		1c000000 1b00 0000 05000000 39300000
		01 00 0000
		0800 0100 0b000000`
	ackReply = `
		24000000 0200 0001 05000000 39300000
		00000000 1c000000 1b000500 05000000 00000000`
	busyReply = `
		24000000 0200 0000 05000000 39300000
		f0ffffff 1c000000 1b000500 05000000 00000000`
	otherReply = `
		24000000 0200 0001 04000000 39300000
		ffffffff 1c000000 1b000500 04000000 00000000`
)

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name, text string
		last       bool
		err        error
		index      string
	}{
		{"index", indexReply, false, nil, "0b000000"},
		{"index and acknowledgement", indexReply + ackReply, true, nil, "0b000000"},
		{"acknowledgement", ackReply, true, nil, ""},
		{"refusal", busyReply, true, syscall.EBUSY, ""},
		{"another request's, then ours", otherReply + ackReply, true, nil, ""},
		{"nothing", "", false, nil, ""},
		{"half a header", "1c000000 1b00", false, errMalformed, ""},
		{"longer than it is", "20000000 1b00 0000 05000000 39300000 01 00 0000", false, errMalformed, ""},
		{"shorter than a header", "10000000 1b00 0000 05000000 39300000 01 00 0000", false, errMalformed, ""},
		{"long attribute", "1c000000 1b00 0000 05000000 39300000 01 00 0000 0900 0100 0b000000", false, errMalformed, ""},
		{"short attribute", "1c000000 1b00 0000 05000000 39300000 01 00 0000 0300 0100 0b000000", false, errMalformed, ""},
	} {
		a := answer{seq: 5}
		last, err := a.take(raw(t, test.text))
		if got := hex.EncodeToString(a.attrs[attrIndex]); last != test.last || !errors.Is(err, test.err) || got != test.index {
			t.Errorf("%s: %v, %v, %s", test.name, last, err, got)
		}
	}
}

// FuzzAnswer: no answer makes it fail in another way than by an error.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{indexReply + ackReply, busyReply, otherReply} {
		text = strings.Join(strings.Fields(text), "")
		p, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(_ *testing.T, p []byte) {
		a := answer{seq: 5}
		_, _ = a.take(p)
	})
}
