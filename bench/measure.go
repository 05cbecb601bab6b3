package main

import (
	"fmt"
	"os"
	"slices"
)

// figure is the result of one case, with a value for each round.
type figure struct {
	Group  string    `json:"group"`
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Rounds []float64 `json:"rounds"`
}

// median returns the middle value; of an even number, the lower of the two.
func (f *figure) median() float64 {
	s := slices.Sorted(slices.Values(f.Rounds))
	return s[(len(s)-1)/2]
}

func (f *figure) low() float64  { return slices.Min(f.Rounds) }
func (f *figure) high() float64 { return slices.Max(f.Rounds) }

// measured is a case that runs in turn with the others of its group.
type measured struct {
	name string
	unit string
	run  func() (float64, error)
}

// group runs its cases in turn, for one round that does not count and then as many as the
// settings say, and adds the figures to the report.
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

// find returns the figure of a case of a group. It panics if there is none.
func (r *report) find(group, name string) *figure {
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.Group == group && f.Name == name })
	if i < 0 {
		panic("bench: no figure " + group + " " + name)
	}
	return r.Figures[i]
}

// ratio returns the median of a/b over the rounds. In each round the two ran next to each
// other, so other load of the machine affected both.
func (r *report) ratio(group, a, b string) float64 {
	fa, fb := r.find(group, a), r.find(group, b)
	q := &figure{Rounds: make([]float64, len(fa.Rounds))}
	for i := range q.Rounds {
		q.Rounds[i] = fa.Rounds[i] / fb.Rounds[i]
	}
	return q.median()
}

// claim is a promise and the result of its check.
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
