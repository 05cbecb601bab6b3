//go:build linux

package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Header: request 4, flags 4, size 4.
const (
	headerLen  = 12
	maxPayload = 512 // the longest legal one is 8 + 8*32

	version     = 1
	versionMask = 3
	flagReply   = 4
	needReply   = 8
)

// request is the type of a message.
type request uint32

const (
	getFeatures         request = 1
	setFeatures         request = 2
	setOwner            request = 3
	resetOwner          request = 4
	setMemTable         request = 5
	setLogBase          request = 6
	setLogFD            request = 7
	setVringNum         request = 8
	setVringAddr        request = 9
	setVringBase        request = 10
	getVringBase        request = 11
	setVringKick        request = 12
	setVringCall        request = 13
	setVringErr         request = 14
	getProtocolFeatures request = 15
	setProtocolFeatures request = 16
	getQueueNum         request = 17
	setVringEnable      request = 18
	setBackendReqFD     request = 21
	getConfig           request = 24
	setConfig           request = 25
	getInflightFD       request = 31
	setInflightFD       request = 32
	resetDevice         request = 34
	getMaxMemSlots      request = 36
	addMemReg           request = 37
	remMemReg           request = 38
	setStatus           request = 39
	getStatus           request = 40
)

// message is a decoded message. Its form determines which fields are set.
type message struct {
	request request
	flags   uint32

	value   uint64 // word
	index   uint32 // state, address
	num     uint32 // state; address: flags
	addr    ringAddr
	regions []regionDesc
	config  configPart
	log     logDesc

	inflight inflightDesc
	file     *os.File // sent with a reply
}

// ringAddr is the addresses of a ring in the front end.
type ringAddr struct{ desc, used, avail, log uint64 }

// regionDesc is a region of guest memory as the front end describes it.
type regionDesc struct{ guest, size, user, offset uint64 }

// configPart is a piece of the config space.
type configPart struct {
	offset, flags uint32
	data          []byte
}

// logDesc describes the log of written pages.
type logDesc struct{ size, offset uint64 }

// inflightDesc describes the memory that records requests in flight; each ring has a
// part of it.
type inflightDesc struct {
	size, offset uint64
	rings, num   uint16 // number of rings, entries of each
	pad          int    // bytes that follow; this differs between front ends
}

// form is the format of a payload: its minimum and maximum length, and how to decode
// and encode it.
type form struct {
	min, max int
	decode   func(b []byte, m *message) error
	encode   func(b []byte, m *message) []byte
}

const (
	maxRegions = 8 // in one message
	regionLen  = 32
	maxConfig  = 256
)

var order = binary.NativeEndian

var (
	empty   = &form{0, 0, func([]byte, *message) error { return nil }, func(b []byte, _ *message) []byte { return b }}
	word    = &form{8, 8, decodeWord, encodeWord}
	state   = &form{8, 8, decodeState, encodeState}
	address = &form{40, 40, decodeAddress, encodeAddress}
	table   = &form{8, maxPayload, decodeTable, encodeTable}
	single  = &form{8 + regionLen, maxPayload, decodeSingle, encodeSingle}
	flight  = &form{20, 24, decodeInflight, encodeInflight}
	logBase = &form{16, 16, decodeLog, encodeLog}
	config  = &form{12, 12 + maxConfig, decodeConfig, encodeConfig}
)

func decodeWord(b []byte, m *message) error {
	m.value = order.Uint64(b)
	return nil
}

func encodeWord(b []byte, m *message) []byte { return order.AppendUint64(b, m.value) }

func decodeState(b []byte, m *message) error {
	m.index, m.num = order.Uint32(b), order.Uint32(b[4:])
	return nil
}

func encodeState(b []byte, m *message) []byte {
	return order.AppendUint32(order.AppendUint32(b, m.index), m.num)
}

func decodeAddress(b []byte, m *message) error {
	m.index, m.num = order.Uint32(b), order.Uint32(b[4:])
	m.addr = ringAddr{order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[24:]), order.Uint64(b[32:])}
	return nil
}

func encodeAddress(b []byte, m *message) []byte {
	b = encodeState(b, m)
	for _, v := range []uint64{m.addr.desc, m.addr.used, m.addr.avail, m.addr.log} {
		b = order.AppendUint64(b, v)
	}
	return b
}

// Front ends always send room for several regions; the number says how many are
// valid.
func decodeTable(b []byte, m *message) error {
	n := order.Uint32(b)
	if n > maxRegions || int(n)*regionLen > len(b)-8 {
		return fmt.Errorf("invalid table of %d regions in %d bytes", n, len(b))
	}
	for i := range int(n) {
		m.regions = append(m.regions, decodeRegion(b[8+i*regionLen:]))
	}
	return nil
}

func encodeTable(b []byte, m *message) []byte {
	b = order.AppendUint64(b, uint64(len(m.regions)))
	for _, r := range m.regions {
		b = encodeRegion(b, r)
	}
	return b
}

func decodeSingle(b []byte, m *message) error {
	m.regions = append(m.regions, decodeRegion(b[8:]))
	return nil
}

func encodeSingle(b []byte, m *message) []byte {
	return encodeRegion(order.AppendUint64(b, 0), m.regions[0])
}

func decodeRegion(b []byte) regionDesc {
	return regionDesc{order.Uint64(b), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[24:])}
}

func encodeRegion(b []byte, r regionDesc) []byte {
	for _, v := range []uint64{r.guest, r.size, r.user, r.offset} {
		b = order.AppendUint64(b, v)
	}
	return b
}

func decodeConfig(b []byte, m *message) error {
	size := order.Uint32(b[4:])
	if size == 0 || int(size) != len(b)-12 {
		return fmt.Errorf("%d bytes of config space in a payload of %d", size, len(b))
	}
	m.config = configPart{order.Uint32(b), order.Uint32(b[8:]), append([]byte(nil), b[12:]...)}
	return nil
}

func encodeConfig(b []byte, m *message) []byte {
	b = order.AppendUint32(b, m.config.offset)
	b = order.AppendUint32(b, uint32(len(m.config.data)))
	return append(order.AppendUint32(b, m.config.flags), m.config.data...)
}

func decodeLog(b []byte, m *message) error {
	m.log = logDesc{order.Uint64(b), order.Uint64(b[8:])}
	return nil
}

func encodeLog(b []byte, m *message) []byte {
	return order.AppendUint64(order.AppendUint64(b, m.log.size), m.log.offset)
}

func decodeInflight(b []byte, m *message) error {
	m.inflight = inflightDesc{order.Uint64(b), order.Uint64(b[8:]), order.Uint16(b[16:]), order.Uint16(b[18:]), len(b) - 20}
	return nil
}

func encodeInflight(b []byte, m *message) []byte {
	d := m.inflight
	b = order.AppendUint64(order.AppendUint64(b, d.size), d.offset)
	b = order.AppendUint16(order.AppendUint16(b, d.rings), d.num)
	return append(b, make([]byte, d.pad)...)
}

// kind is a row of the table of requests.
type kind struct {
	name  string
	in    *form
	reply *form // nil: no reply of its own
	fds   int   // maximum number of file descriptors
}

// kinds are the supported requests; all others are refused.
var kinds = map[request]kind{
	getFeatures:         {"GET_FEATURES", empty, word, 0},
	setFeatures:         {"SET_FEATURES", word, nil, 0},
	setOwner:            {"SET_OWNER", empty, nil, 0},
	resetOwner:          {"RESET_OWNER", empty, nil, 0},
	setMemTable:         {"SET_MEM_TABLE", table, nil, maxRegions},
	setLogBase:          {"SET_LOG_BASE", logBase, word, 1},
	setLogFD:            {"SET_LOG_FD", empty, nil, 1},
	setVringNum:         {"SET_VRING_NUM", state, nil, 0},
	setVringAddr:        {"SET_VRING_ADDR", address, nil, 0},
	setVringBase:        {"SET_VRING_BASE", state, nil, 0},
	getVringBase:        {"GET_VRING_BASE", state, state, 0},
	setVringKick:        {"SET_VRING_KICK", word, nil, 1},
	setVringCall:        {"SET_VRING_CALL", word, nil, 1},
	setVringErr:         {"SET_VRING_ERR", word, nil, 1},
	getProtocolFeatures: {"GET_PROTOCOL_FEATURES", empty, word, 0},
	setProtocolFeatures: {"SET_PROTOCOL_FEATURES", word, nil, 0},
	getQueueNum:         {"GET_QUEUE_NUM", empty, word, 0},
	setVringEnable:      {"SET_VRING_ENABLE", state, nil, 0},
	setBackendReqFD:     {"SET_BACKEND_REQ_FD", empty, nil, 1},
	getConfig:           {"GET_CONFIG", config, config, 0},
	setConfig:           {"SET_CONFIG", config, nil, 0},
	getInflightFD:       {"GET_INFLIGHT_FD", flight, flight, 0},
	setInflightFD:       {"SET_INFLIGHT_FD", flight, nil, 1},
	resetDevice:         {"RESET_DEVICE", empty, nil, 0},
	getMaxMemSlots:      {"GET_MAX_MEM_SLOTS", empty, word, 0},
	addMemReg:           {"ADD_MEM_REG", single, nil, 1},
	remMemReg:           {"REM_MEM_REG", single, nil, 1},
	setStatus:           {"SET_STATUS", word, nil, 0},
	getStatus:           {"GET_STATUS", empty, word, 0},
}

func (r request) String() string {
	if k, ok := kinds[r]; ok {
		return k.name
	}
	return fmt.Sprintf("request %d", uint32(r))
}

// header is the first part of a message.
type header struct {
	request request
	flags   uint32
	size    uint32
}

// decodeHeader refuses headers whose payload should not be read.
func decodeHeader(b []byte) (h header, err error) {
	h = header{request(order.Uint32(b)), order.Uint32(b[4:]), order.Uint32(b[8:])}
	switch {
	case h.flags&versionMask != version:
		return h, fmt.Errorf("unknown message version %d", h.flags&versionMask)
	case h.flags&flagReply != 0:
		return h, errors.New("unexpected reply")
	case h.size > maxPayload:
		return h, fmt.Errorf("%v has a payload of %d bytes", h.request, h.size)
	}
	return h, nil
}

// decode reads the payload of a request.
func decode(h header, payload []byte) (*message, error) {
	k, ok := kinds[h.request]
	if !ok {
		return nil, errors.New("not supported for block devices")
	}
	if len(payload) < k.in.min || len(payload) > k.in.max {
		return nil, fmt.Errorf("wrong payload length %d", len(payload))
	}
	m := &message{request: h.request, flags: h.flags}
	return m, k.in.decode(payload, m)
}

// encode encodes m with a payload of the given form.
func encode(m *message, f *form) []byte {
	b := make([]byte, headerLen, headerLen+f.min)
	b = f.encode(b, m)
	order.PutUint32(b, uint32(m.request))
	order.PutUint32(b[4:], m.flags)
	order.PutUint32(b[8:], uint32(len(b)-headerLen))
	return b
}
