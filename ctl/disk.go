package ctl

// Disk gives a path a device number of the user's choice while it is registered:
// tables may name the disk by this number, and it has the number whenever it is open.
type Disk struct {
	Number
	Path string `json:"path"` // or mem:SIZE and the like, as in a table
}
