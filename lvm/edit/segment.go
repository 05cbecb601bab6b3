package edit

import (
	"fmt"

	"udm/lvm"
	"udm/lvm/text"
)

func section(entries ...text.Entry) *text.Section { return &text.Section{Entries: entries} }

func value(name string, v text.Value) text.Entry { return text.Entry{Name: name, Value: v} }

// number is a number that has been checked when the text was decoded.
func number(v text.Value) uint64 { return uint64(v.(text.Int)) }

func segmentName(i uint64) string { return fmt.Sprintf("segment%d", i) }

// segment returns a segment with fields of its type.
func segment(start, count uint64, kind string, fields ...text.Entry) *text.Section {
	return section(append([]text.Entry{value("start_extent", text.Int(start)), value("extent_count", text.Int(count)), value("type", text.String(kind))}, fields...)...)
}

func stripedSegment(start, count uint64, piece []run, o Layout) *text.Section {
	stripes := text.Array{}
	for _, r := range piece {
		stripes = append(stripes, text.String(r.pv), text.Int(r.Start))
	}
	s := segment(start, count, "striped", value("stripe_count", text.Int(len(piece))))
	if len(piece) > 1 {
		s.Set("stripe_size", text.Int(o.StripeSectors))
	}
	s.Set("stripes", stripes)
	return s
}

func lastSegment(lv *text.Section) *text.Section {
	return lv.Section(segmentName(number(lv.Value("segment_count"))))
}

// end is the length of a volume in extents.
func end(lv *text.Section) uint64 {
	s := lastSegment(lv)
	if s == nil {
		return 0
	}
	return number(s.Value("start_extent")) + number(s.Value("extent_count"))
}

func appendSegment(lv, s *text.Section) {
	n := number(lv.Value("segment_count")) + 1
	lv.Set("segment_count", text.Int(n))
	lv.SetSection(segmentName(n), s)
}

// grow extends the last segment of a linear volume if the extents follow it.
func grow(lv *text.Section, pv string, start, n uint64, o Layout) bool {
	if o.Stripes > 1 || adjacent([]run{{pv, lvm.Extents{Start: start}}}, lv) == nil {
		return false
	}
	s := lastSegment(lv)
	s.Set("extent_count", text.Int(number(s.Value("extent_count"))+n))
	return true
}

// cut shortens a volume to a number of extents, or to a few more if its last segment is
// striped.
func cut(lv *text.Section, extents uint64) {
	for n := number(lv.Value("segment_count")); n > 0; n-- {
		s := lv.Section(segmentName(n))
		start := number(s.Value("start_extent"))
		if start < extents {
			stripes := number(s.Value("stripe_count"))
			s.Set("extent_count", text.Int((extents-start+stripes-1)/stripes*stripes))
			return
		}
		lv.Delete(segmentName(n))
		lv.Set("segment_count", text.Int(n-1))
	}
}

// newLV adds a volume without segments and returns its section.
func (ed *Edit) newLV(name string, status, flags []string) *text.Section {
	lv := section(
		value("id", text.String(lvm.NewUUID(ed.env).String())), value("status", text.Strings(status...)), value("flags", text.Strings(flags...)),
		value("creation_time", text.Int(ed.by.Time.Unix())), value("creation_host", text.String(ed.by.Host)), value("segment_count", text.Int(0)),
	)
	ed.section("logical_volumes").SetSection(name, lv)
	return lv
}
