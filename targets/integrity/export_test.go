package integrity

var NewHash = newHash
