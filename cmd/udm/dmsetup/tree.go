package dmsetup

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"udm/ctl"
)

// node is a device in the dependency tree: a mapped device, or one below.
type node struct {
	number       ctl.Number
	dev          *ctl.Device // nil: not a mapped device
	block        string      // Linux's name
	uses, usedBy []*node     // in both, the tree's root stands for "nothing"
}

// tree is the graph of dependencies as libdm builds it: a device is a child of the
// root until something uses it.
type tree struct {
	root  *node
	nodes map[ctl.Number]*node
	devs  map[ctl.Number]*ctl.Device
}

// buildTree adds all devices, in the order of the list.
func buildTree(ds []ctl.Device) *tree {
	tr := &tree{root: new(node), nodes: make(map[ctl.Number]*node), devs: make(map[ctl.Number]*ctl.Device)}
	for i := range ds {
		tr.devs[ds[i].Number] = &ds[i]
	}
	for i := range ds {
		tr.add(tr.root, ctl.Dep{Number: ds[i].Number, Name: blockName(&ds[i])})
	}
	return tr
}

func (tr *tree) add(parent *node, d ctl.Dep) {
	n, known := tr.nodes[d.Number]
	if !known {
		n = &node{number: d.Number, dev: tr.devs[d.Number], block: d.Name}
		tr.nodes[d.Number] = n
	}
	tr.link(parent, n)
	if known {
		return
	}
	if n.dev == nil || len(n.dev.Deps) == 0 {
		tr.link(n, tr.root)
		return
	}
	for _, dep := range n.dev.Deps {
		tr.add(n, dep)
	}
}

// link makes parent use child. Where there is another parent or child, the root is
// removed.
func (tr *tree) link(parent, child *node) {
	switch {
	case parent == tr.root && tr.count(child, true) > 0, child == tr.root && tr.count(parent, false) > 0:
		return
	case parent != tr.root:
		unlink(tr.root, child)
	}
	if child != tr.root {
		unlink(parent, tr.root)
	}
	if !slices.Contains(parent.uses, child) {
		parent.uses, child.usedBy = append(parent.uses, child), append(child.usedBy, parent)
	}
}

func unlink(parent, child *node) {
	parent.uses = slices.DeleteFunc(parent.uses, func(n *node) bool { return n == child })
	child.usedBy = slices.DeleteFunc(child.usedBy, func(n *node) bool { return n == parent })
}

// next returns the nodes below n, or those above it if inverted.
func (n *node) next(inverted bool) []*node {
	if inverted {
		return n.usedBy
	}
	return n.uses
}

// count returns the number of nodes below n, or above it if inverted, without the
// root.
func (tr *tree) count(n *node, inverted bool) int {
	if slices.Contains(n.next(inverted), tr.root) {
		return 0
	}
	return len(n.next(inverted))
}

// names lists the mapped devices next to n.
func (n *node) names(inverted bool, m mangling) string {
	var names []string
	for _, o := range n.next(inverted) {
		if o.dev != nil {
			names = append(names, m.unmangle(o.dev.Name))
		}
	}
	return strings.Join(names, ",")
}

// treeStyle is the options of ls --tree -o.
type treeStyle struct {
	device, block, active, rw, open, uuid bool
	compact, inverted, truncate           bool
	symbols                               symbols
}

// symbols draw the branches.
type symbols struct{ empty, branch, vertical, last, single, first string }

func asciiSymbols() symbols { return symbols{"  ", "|-", "| ", "`-", "---", "-+-"} }
func utfSymbols() symbols   { return symbols{"  ", "├─", "│ ", "└─", "───", "─┬─"} }
func vtSymbols() symbols {
	line := func(s string) string { return "\033(0\017" + s + "\033(B" }
	return symbols{"  ", line("tq"), line("x") + " ", line("mq"), line("qqq"), line("qwq")}
}

// parseTreeStyle parses the options of a tree. Each may be abbreviated.
func (t *tool) parseTreeStyle() (treeStyle, error) {
	s := treeStyle{device: true, truncate: true, symbols: asciiSymbols()}
	if t.UTF8 {
		s.symbols = utfSymbols()
	}
	table, status := false, false // accepted, but without effect
	words := []struct {
		name string
		set  *bool
		to   bool
	}{
		{"device", &s.device, true}, {"blkdevname", &s.block, true}, {"nodevice", &s.device, false},
		{"status", &status, true}, {"table", &table, true}, {"active", &s.active, true},
		{"open", &s.open, true}, {"uuid", &s.uuid, true}, {"rw", &s.rw, true},
		{"inverted", &s.inverted, true}, {"compact", &s.compact, true}, {"notrunc", &s.truncate, false},
	}
	drawn := map[string]func() symbols{"utf": utfSymbols, "vt100": vtSymbols, "ascii": asciiSymbols}
next:
	for rest := t.value["options"]; rest != ""; {
		whole := rest
		var word string
		word, rest, _ = strings.Cut(rest, ",")
		for _, w := range words {
			if strings.HasPrefix(w.name, word) {
				*w.set = w.to
				continue next
			}
		}
		for _, name := range []string{"utf", "vt100", "ascii"} {
			if strings.HasPrefix(name, word) {
				s.symbols = drawn[name]()
				continue next
			}
		}
		return s, complain("Tree options not recognised: %s.", whole)
	}
	s.compact = s.compact && !s.attributes()
	return s, nil
}

func (s *treeStyle) attributes() bool { return s.active || s.rw || s.open || s.uuid }

func (t *tool) showTree() bool {
	style, err := t.parseTreeStyle()
	if err != nil {
		return t.errorf("%v", err)
	}
	ds, ok := t.devices(ctl.Query{With: []ctl.With{ctl.WithDeps}})
	if ok && len(ds) == 0 {
		t.printf("No devices found\n")
	}
	p := &treePrinter{t: t, tree: buildTree(ds), style: style, width: 80, x: 1}
	if t.Width > 3 {
		p.width = t.Width - 3
	}
	p.walk(p.tree.root, 0)
	return ok
}

// maxDepth is the maximum depth that is shown.
const maxDepth = 100

// treePrinter draws a tree.
type treePrinter struct {
	t      *tool
	tree   *tree
	style  treeStyle
	width  int // of the terminal
	x      int // next column, from 1
	held   rune
	widths [maxDepth]int  // in a compact tree, of the node drawn at each depth
	more   [maxDepth]bool // more nodes follow at each depth
}

func (p *treePrinter) walk(n *node, depth int) {
	kids := n.next(p.style.inverted)
	for i, kid := range kids {
		has := p.tree.count(kid, p.style.inverted) > 0
		if depth+2 <= maxDepth {
			p.node(kid, depth, i == len(kids)-1, has)
		}
		if has && depth+2 < maxDepth {
			p.walk(kid, depth+1)
		}
	}
}

func (p *treePrinter) node(n *node, depth int, last, hasKids bool) {
	if n.dev == nil && !p.style.device && !p.style.block {
		return
	}
	p.more[depth], p.widths[depth] = !last, 0
	first := p.x == 1
	if !p.style.compact || first {
		p.prefix(depth)
	}
	start := p.x
	if p.style.compact && !first {
		if p.more[depth] {
			p.draw(p.style.symbols.first)
		} else {
			p.draw(p.style.symbols.single)
		}
	}
	p.draw(p.text(n))
	if p.style.compact {
		p.widths[depth] = p.x - start
	}
	if !p.style.compact || !hasKids {
		p.newline()
	}
}

// text is the text of a node.
func (p *treePrinter) text(n *node) string {
	s := ""
	if n.dev != nil {
		s = p.t.mangling.unmangle(n.dev.Name)
	}
	if p.style.block && n.block != "" {
		s += " <" + n.block + ">"
	}
	if p.style.device {
		s += " (" + n.number.String() + ")"
	}
	if n.dev != nil && p.style.attributes() {
		s += " [" + strings.Join(p.attributes(n.dev), ", ") + "]"
	}
	return s
}

func (p *treePrinter) attributes(d *ctl.Device) (as []string) {
	if p.style.active {
		as = append(as, choose(d.Suspended, "SUSPENDED", "ACTIVE"))
	}
	if p.style.rw {
		as = append(as, choose(d.ReadOnly, "RO", "RW"))
	}
	if p.style.open {
		as = append(as, fmt.Sprint(d.Opens))
	}
	if p.style.uuid {
		as = append(as, p.t.mangling.unmangle(d.UUID))
	}
	return as
}

func choose(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func (p *treePrinter) prefix(depth int) {
	for d := range depth {
		p.draw(strings.Repeat(" ", p.widths[d]+1))
		switch {
		case d == depth-1 && p.more[depth]:
			p.draw(p.style.symbols.branch)
		case d == depth-1:
			p.draw(p.style.symbols.last)
		case p.more[d+1]:
			p.draw(p.style.symbols.vertical)
		default:
			p.draw(p.style.symbols.empty)
		}
	}
}

// draw prints s up to the width of the terminal. If it is cut off it ends with "...",
// unless only one more character would follow, which fits.
func (p *treePrinter) draw(s string) {
	for _, r := range s {
		p.x++
		switch {
		case !p.style.truncate || p.x <= p.width:
			p.t.printf("%c", r)
		case p.x == p.width+1 && (p.held != 0 || r >= utf8.RuneSelf):
			p.t.printf("...")
		case p.x == p.width+1:
			p.held = r
			p.x--
		}
	}
}

func (p *treePrinter) newline() {
	if p.held != 0 && p.x == p.width {
		p.t.printf("%c", p.held)
	}
	p.held, p.x = 0, 1
	p.t.printf("\n")
}
