package smq

import "time"

// Tick ends the periods that are over. It is to be called now and then, at least once
// a second: a hot spot rises at most once between two ticks.
func (p *Policy) Tick(now time.Duration) {
	if now > p.nextWriteback {
		p.moveSentinels()
		p.nextWriteback = now + writebackPeriod
	}
	clear(p.hotHits)
	p.setPromoteLevels()
	if now > p.nextHotspot {
		p.jump = [...]int{poor: 4, fair: 2, well: 1}[p.hotRate.assess()]
		p.hotspot.redistribute()
		p.hotRate.reset()
		p.nextHotspot = now + hotspotPeriod
	}
	if now > p.nextCache {
		clear(p.hits)
		p.dirty.redistribute()
		p.clean.redistribute()
		p.rate.reset()
		p.nextCache = now + cachePeriod
	}
}

// moveSentinels moves one of the two sentinels of each level of the dirty queue to its
// end. What is before the first one has not been written for a period at least.
func (p *Policy) moveSentinels() {
	for l := range uint8(levels) {
		s := p.sentinel(l, true)
		p.dirty.remove(s)
		p.dirty.push(s)
	}
	p.sentinelsNow = !p.sentinelsNow
}

// promoted says how many levels of hot spots are promoted at a hit rate of the cache
// in sixteenths: few if the cache serves nothing, since promoting costs what it would
// gain, and few if it serves all.
var promoted = [17]uint8{1, 1, 1, 2, 4, 6, 7, 8, 7, 6, 4, 4, 3, 3, 2, 2, 1}

func (p *Policy) setPromoteLevels() {
	n := uint8(levels / 2) // there is room
	if p.blocks.empty() {
		n = promoted[p.rate.share(16)]
	}
	n = max(n, levels)
	switch p.hotRate.assess() {
	case poor:
		n /= 4
	case fair:
		n /= 2
	}
	p.readLevel, p.writeLevel = levels-n, levels-n
}
