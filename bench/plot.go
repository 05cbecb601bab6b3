package main

import (
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// plots draws a bar chart of each group as SVG.
func (r *report) plots() error {
	byGroup := map[string][]*figure{}
	var order []string
	for _, f := range r.Figures {
		if byGroup[f.Group] == nil {
			order = append(order, f.Group)
		}
		byGroup[f.Group] = append(byGroup[f.Group], f)
	}
	for _, g := range order {
		if err := r.plot(g, byGroup[g]); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) plot(group string, fs []*figure) error {
	p := plot.New()
	p.Title.Text = group
	p.X.Label.Text = fs[0].Unit
	values, names := make(plotter.Values, len(fs)), make([]string, len(fs))
	for i, f := range fs { // the first case on top
		values[len(fs)-1-i], names[len(fs)-1-i] = f.median(), f.Name
	}
	bars, err := plotter.NewBarChart(values, vg.Points(10))
	if err != nil {
		return err
	}
	bars.Horizontal = true
	bars.LineStyle.Width = 0
	bars.Color = plotter.DefaultLineStyle.Color
	p.Add(bars, plotter.NewGrid())
	p.NominalY(names...)
	name := strings.Map(func(c rune) rune {
		if c == ' ' || c == '/' || c == ',' {
			return '-'
		}
		return c
	}, group)
	return p.Save(9*vg.Inch, vg.Length(len(fs))*vg.Points(16)+1.2*vg.Inch, filepath.Join(r.out, name+".svg"))
}
