package run

// oldCalls are the calls that only older processors have.
var oldCalls map[uint32]handler
