//go:build linux

package vhost

import "errors"

// resetDevice stops all rings and forgets what the driver has set up. Guest memory and the
// front end's channel stay.
func (s *session) resetDevice(*message, fds) error {
	if s.protocol&protoReset == 0 {
		return errors.New("resets were not negotiated")
	}
	s.reset()
	s.chooseCache(true)
	return nil
}

func (s *session) reset() {
	for _, r := range s.rings {
		r.reset()
	}
	s.features, s.status = 0, 0
	s.cache.accept(0)
	s.applyLog()
}

// setStatus sets the driver's status; 0 is a reset. The cache mode survives it, because
// front ends also set 0 when they pause a guest, which does not learn of that.
func (s *session) setStatus(m *message, _ fds) error {
	switch {
	case s.protocol&protoStatus == 0:
		return errNoStatus
	case m.value > 0xff:
		return errors.New("invalid device status")
	case m.value == 0:
		s.reset()
	}
	s.status = m.value
	return nil
}

func (s *session) getStatus(m *message, _ fds) error {
	if s.protocol&protoStatus == 0 {
		return errNoStatus
	}
	m.value = s.status
	return nil
}

var errNoStatus = errors.New("the device status was not negotiated")
