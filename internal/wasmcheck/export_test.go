package wasmcheck

// MeterOften is Meter with another budget, so that small modules call tick.
func MeterOften(b []byte, budget int32) ([]byte, error) { return rewrite(b, budget) }
