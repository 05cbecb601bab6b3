package attach

// blockServer is a ublk.Server, where there is ublk.
type blockServer interface {
	Leave()
	Ended() <-chan struct{}
}

// serves reports whether this daemon answers the requests of a block device by ublk.
func (k *Kernel) serves(minor uint32) bool {
	s := k.ublk[minor]
	if s == nil {
		return false
	}
	select {
	case <-s.Ended():
		return false
	default:
		return true
	}
}
