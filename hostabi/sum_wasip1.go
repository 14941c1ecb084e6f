package hostabi

// sum256 avoids crypto/sha256 in guests: its self-tests alone add a twentieth to the module of a small plugin.
func sum256(b []byte) [32]byte { return smallSum256(b) }
