// Package list is a queue of things linked through themselves: adding never
// allocates, and a thing is in one list at a time (the kernel's bio_list).
package list

// Linked is what can be queued: a pointer with a place for the link.
type Linked[T any] interface {
	*T
	// Link is where the list keeps the next element.
	Link() **T
}

// List is a queue. The zero value is empty. It is not safe for concurrent use.
type List[T any, P Linked[T]] struct{ head, tail *T }

// Empty reports whether the list holds nothing.
func (l *List[T, P]) Empty() bool { return l.head == nil }

// First is the first element, which stays; nil when the list is empty.
func (l *List[T, P]) First() *T { return l.head }

// Push appends e.
func (l *List[T, P]) Push(e *T) {
	*P(e).Link() = nil
	if l.tail == nil {
		l.head = e
	} else {
		*P(l.tail).Link() = e
	}
	l.tail = e
}

// PushHead puts e in front.
func (l *List[T, P]) PushHead(e *T) {
	*P(e).Link() = l.head
	l.head = e
	if l.tail == nil {
		l.tail = e
	}
}

// Pop takes the first element, nil when the list is empty.
func (l *List[T, P]) Pop() *T {
	e := l.head
	if e == nil {
		return nil
	}
	next := P(e).Link()
	if l.head = *next; l.head == nil {
		l.tail = nil
	}
	*next = nil
	return e
}

// Append moves everything in o to the end of l.
func (l *List[T, P]) Append(o *List[T, P]) {
	if o.head == nil {
		return
	}
	if l.tail == nil {
		l.head = o.head
	} else {
		*P(l.tail).Link() = o.head
	}
	l.tail = o.tail
	*o = List[T, P]{}
}

// Take empties l and returns what it held: to act on it after unlocking.
func (l *List[T, P]) Take() List[T, P] {
	o := *l
	*l = List[T, P]{}
	return o
}
