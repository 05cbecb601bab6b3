package main

import (
	"fmt"
	"os"
	"slices"
)

// figure is what one case measured, a value for each round.
type figure struct {
	Group  string    `json:"group"`
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Rounds []float64 `json:"rounds"`
}

// median is the middle round; of an even number, the lower of the two.
func (f *figure) median() float64 {
	s := slices.Sorted(slices.Values(f.Rounds))
	return s[(len(s)-1)/2]
}

func (f *figure) low() float64  { return slices.Min(f.Rounds) }
func (f *figure) high() float64 { return slices.Max(f.Rounds) }

// measured is a case to be run in turn with the others of its group.
type measured struct {
	name string
	unit string
	run  func() (float64, error)
}

// group runs its cases in turn for the rounds that the settings ask for, after
// one that does not count, and files the figures.
func (r *report) group(name string, cases ...measured) error {
	figures := make([]*figure, len(cases))
	for i, c := range cases {
		figures[i] = &figure{Group: name, Name: c.name, Unit: c.unit}
	}
	for round := range r.rounds + 1 {
		for i, c := range cases {
			v, err := c.run()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				figures[i].Rounds = append(figures[i].Rounds, v)
			}
		}
	}
	r.add(figures...)
	return nil
}

func (r *report) add(fs ...*figure) {
	for _, f := range fs {
		r.Figures = append(r.Figures, f)
		fmt.Fprintf(os.Stderr, "  %-12s %-44s %14s %s\n", f.Group, f.Name, number(f.median()), f.Unit)
	}
}

// find is the figure of a group by its name; it is an error of the program if
// there is none.
func (r *report) find(group, name string) *figure {
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.Group == group && f.Name == name })
	if i < 0 {
		panic("bench: no figure " + group + " " + name)
	}
	return r.Figures[i]
}

// ratio is the median of a over b, round by round: the two ran next to each
// other, so what else the machine did at that time is in both.
func (r *report) ratio(group, a, b string) float64 {
	fa, fb := r.find(group, a), r.find(group, b)
	q := &figure{Rounds: make([]float64, len(fa.Rounds))}
	for i := range q.Rounds {
		q.Rounds[i] = fa.Rounds[i] / fb.Rounds[i]
	}
	return q.median()
}

// claim is a promise and what was found.
type claim struct {
	Text  string  `json:"text"`
	Found float64 `json:"found"`
	Bound string  `json:"bound"`
	Holds bool    `json:"holds"`
}

func (r *report) atMost(bound, found float64, format string, args ...any) {
	r.Claims = append(r.Claims, claim{fmt.Sprintf(format, args...), found, fmt.Sprintf("≤ %.3g", bound), found <= bound})
}

func (r *report) atLeast(bound, found float64, format string, args ...any) {
	r.Claims = append(r.Claims, claim{fmt.Sprintf(format, args...), found, fmt.Sprintf("≥ %.3g", bound), found >= bound})
}
