package blktest

// Impatient makes [Leaks] give up after one attempt, and returns what undoes it.
func Impatient() (undo func()) {
	old := patience
	patience = 1
	return func() { patience = old }
}
