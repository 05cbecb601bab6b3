package ctl

// Disk is a path that has a number of its user's choice for as long as it is
// registered: tables may name it by the number, and it has it whenever it is open.
type Disk struct {
	Number
	Path string `json:"path"` // or mem:SIZE and the like, as in a table
}
