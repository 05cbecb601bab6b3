//go:build chromium

package web

import (
	"fmt"
	"math"
	"testing"

	"udm/ctl/server"
	"udm/volume"
)

// longest is the processor time that the page's main thread may take at once, with the cost of
// tracing it.
const longest = 100_000 // microseconds

// TestManyDevices draws, pans, zooms and searches 2,000 devices. What counts is the processor
// time of the page's own tasks, as the browser traces them: on a busy machine the time on a
// clock is that of others.
func TestManyDevices(t *testing.T) {
	r := newRig(t, server.Config{})
	var names []string
	for i := range 1992 {
		names = append(names, fmt.Sprintf("vm-%04d", i))
	}
	must(t, r.Clone(ctx, volume.CloneSpec{Base: r.file("image.img", 1<<20), Names: names}))
	for i := range 8 {
		r.create(fmt.Sprintf("disk-%d", i), fmt.Sprintf("0 2048 linear mem:1M:%d 0", i))
	}
	p := open(t, 1280, 900, false)
	frame := func() { p.eval(`new Promise(done => requestAnimationFrame(() => setTimeout(done)))`) }
	tasks := p.tasks(func() {
		p.visit(r.at(), shown)
		if n := get[int](p, `udm.state.devices.length`); n != 2000 {
			t.Errorf("%d devices", n)
		}
		box := get[struct{ X, Y, Width, Height float64 }](p, `document.getElementById("graph").getBoundingClientRect().toJSON()`)
		x, y := box.X+box.Width/2, box.Y+box.Height/2
		p.mouse("mousePressed", x, y, 0)
		for i := range 10 {
			p.mouse("mouseMoved", x+float64(i*9), y+20*math.Sin(float64(i)), 0)
			frame()
		}
		p.mouse("mouseReleased", x, y, 0)
		p.keys("/")
		p.keys("v", "m", "-", "1", "2", "3")
		frame()
		if lit := get[int](p, `udm.graph.found.size`); lit != 10 {
			t.Errorf("%d devices are found", lit)
		}
		p.keys("Enter")
		frame()
		if name := get[string](p, `udm.graph.selected.name`); name != "vm-1230" {
			t.Errorf("%s is selected", name)
		}
		for range 8 {
			p.keys("-")
			frame()
		}
		p.keys("0")
		pick(p, "image.img")
		if above := get[int](p, `udm.graph.above.size`); above != 1992 {
			t.Errorf("%d devices stand on the image", above)
		}
		p.next()
		frame()
	})
	worst, renderer := task{}, rendererOf(tasks)
	for _, k := range tasks {
		if k.Thread == renderer && k.CPU > worst.CPU {
			worst = k
		}
	}
	for _, k := range tasks {
		if k.Thread == renderer && k.CPU > longest/2 {
			t.Logf("%s: %.1f ms", k.Name, k.CPU/1000)
		}
	}
	t.Logf("%d tasks, the longest %.1f ms of processor time", len(tasks), worst.CPU/1000)
	if worst.CPU > longest || worst.CPU == 0 {
		t.Errorf("%+v takes longer than a moment", worst)
	}
	p.quiet()
}

// rendererOf is the thread that ran the page's scripts.
func rendererOf(tasks []task) float64 {
	for _, k := range tasks {
		if k.Name == "FunctionCall" || k.Name == "EvaluateScript" {
			return k.Thread
		}
	}
	return 0
}

// TestKeys walks the devices by keys alone.
func TestKeys(t *testing.T) {
	r := newRig(t, server.Config{})
	r.create("ground", "0 4096 linear mem:2M 0")
	for i := range 3 {
		r.create(fmt.Sprintf("house-%d", i+1), fmt.Sprintf("0 1024 linear /dev/mapper/ground %d", i*1024))
	}
	r.create("roof", "0 512 linear /dev/mapper/house-2 0")
	p := open(t, 1280, 900, false)
	p.visit(r.at(), shown)
	for range 12 { // by Tab alone
		if get[string](p, `document.activeElement.id`) == "graph" {
			break
		}
		p.keys("Tab")
	}
	for _, step := range []struct{ key, at string }{
		{"ArrowDown", "ground"}, {"ArrowUp", "house-1"}, {"ArrowRight", "house-3"}, {"ArrowLeft", "house-1"}, {"ArrowLeft", "house-2"}, {"ArrowUp", "roof"}, {"ArrowDown", "house-2"}, {"ArrowDown", "ground"},
	} {
		p.keys(step.key)
		if at := get[string](p, `udm.graph.selected?.name || ""`); at != step.at {
			t.Errorf("%s leads to %q, want %s", step.key, at, step.at)
		}
	}
	if said := get[string](p, `document.getElementById("said").textContent`); said != "ground, disk, active, 4 devices above" {
		t.Errorf("who cannot see it hears %q", said)
	}
	if outline := get[string](p, `getComputedStyle(document.activeElement).outlineStyle + " " + getComputedStyle(document.activeElement).outlineWidth`); outline != "solid 2px" {
		t.Errorf("the focus is drawn as %s", outline)
	}
	p.keys("Escape")
	if !get[bool](p, `udm.graph.selected === null`) {
		t.Error("something is still selected")
	}
	p.keys("?")
	p.until(`document.getElementById("keys").open`)
	p.keys("Escape")
	p.until(`!document.getElementById("keys").open`)
	if unnamed := get[[]string](p, `[...document.querySelectorAll("button, input, canvas, [role=img], dialog, section, aside")].filter(e => e.checkVisibility() && !(e.textContent.trim() || e.ariaLabel || e.getAttribute("aria-labelledby"))).map(e => e.outerHTML)`); len(unnamed) > 0 {
		t.Errorf("without a name: %v", unnamed)
	}
	p.quiet()
}

// TestLooks has the page dark and light, as the system or as chosen, still, and on a phone.
func TestLooks(t *testing.T) {
	r := newRig(t, server.Config{WebOperations: true})
	r.town()
	p := open(t, 390, 844, true)
	ground := `getComputedStyle(document.body).backgroundColor`
	p.media(map[string]string{"prefers-color-scheme": "light", "prefers-reduced-motion": "reduce"})
	p.visit(r.at(), shown)
	for _, name := range []string{"web-01", "fast", "debian-12.img"} {
		pick(p, name)
		if wide := get[float64](p, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("with %s the page is %v wide on a phone", name, wide)
		}
	}
	if small := get[int](p, `document.getElementById("graph").clientWidth`); small < 300 {
		t.Errorf("the picture is %d wide", small)
	}
	if moves := get[bool](p, `[...document.querySelectorAll(".bar i")].some(e => getComputedStyle(e).transitionDuration !== "0s")`); moves {
		t.Error("bars move for those who do not want that")
	}
	light := get[string](p, ground)
	p.media(map[string]string{"prefers-color-scheme": "dark"})
	dark := get[string](p, ground)
	p.eval(`document.getElementById("theme").click()`)
	if chosen := get[string](p, ground); light == dark || chosen != light {
		t.Errorf("light is %s, dark %s, light by choice %s", light, dark, chosen)
	}
	p.eval(`document.getElementById("theme").click()`)
	p.media(map[string]string{"prefers-color-scheme": "light"})
	if chosen := get[string](p, ground); chosen != dark {
		t.Errorf("dark by choice is %s", chosen)
	}
	p.quiet()
}
