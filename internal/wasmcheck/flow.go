package wasmcheck

// What code costs: one for each byte of an instruction, and more for what does more than its bytes say. These numbers
// bound what can run between two calls of tick, at the price of a check where a path without loops gets long.
const (
	callCost   = 512  // the callee may be a function without a check at its entry
	anyCost    = 1024 // call_indirect: the callee may be an import
	hostCost   = 8192 // an import; memory.grow, which ends in the host too
	stride     = 4096 // longest path without a check
	leafCost   = 512  // a function without calls whose paths after the last check are not longer needs none at its entry
	longest    = 20   // bytes of an instruction; a br_table is longer, but its entries cost nothing
	costOfUnit = 128  // cost for one unit of the budget
)

// dead is the cost of a path that ends: what follows cannot be reached.
const dead = -1

// blockKind is what opened a block.
type blockKind uint8

const (
	kindBlock blockKind = iota
	kindLoop
	kindIf
	kindElse
)

// label is an open block.
type label struct {
	kind  blockKind
	cost  int32 // largest of the paths that branch here; of a loop also of the one that enters it
	start int32 // of an if: cost of the path that enters it
	patch int32 // of a loop: for Meter
}

// flow follows the instructions of one function and knows the cost of the longest path since the last check. Checks
// stand after every loop opcode and where ahead says so; the one at the entry pays for paths that leave the function.
type flow struct {
	b      []byte
	hosts  uint32  // functions below are imports
	labels []label // open blocks; the first is the function
	cost   int32
	exit   int32 // largest of the paths that return
}

// begin prepares for the next function.
func (f *flow) begin() {
	f.labels = append(f.labels[:0], label{cost: dead})
	f.cost, f.exit = 0, 0
}

func (f *flow) top() *label { return &f.labels[len(f.labels)-1] }

// ahead reports whether a check belongs in front of the next instruction, of what cost, and counts on from there.
func (f *flow) ahead() (cost int32, ok bool) {
	if f.cost < stride {
		return 0, false
	}
	cost, f.cost = f.cost, 0
	return cost, true
}

// plainOps are the opcodes of one byte that neither branch, nor end something, nor are looked at: arithmetic most of all.
var plainOps = func() (out [256]bool) {
	for op, f := range forms {
		out[op] = f == formNone && op != opUnreachable && op != opElse && op != opEnd && op != opReturn
	}
	return out
}()

// plain follows such instructions, to the next check at most: half of the code, and all of what is made to be slow.
func (f *flow) plain(r *reader) {
	at := r.at
	for cost := f.cost; cost < stride && at < r.end && plainOps[r.b[at]]; cost = f.cost {
		at++
		if cost != dead {
			f.cost++
		}
	}
	r.at = at
}

// step follows one instruction that ends at the byte end; its labels exist. It returns the block that an end closes.
func (f *flow) step(in *instr, end int) (closed label) {
	if f.cost != dead {
		f.cost += int32(min(end-in.at, longest)) + f.extra(in)
	}
	switch in.op {
	case opUnreachable:
		f.cost = dead
	case opBlock:
		f.labels = append(f.labels, label{kind: kindBlock, cost: dead})
	case opIf:
		f.labels = append(f.labels, label{kind: kindIf, cost: dead, start: f.cost})
	case opLoop:
		f.labels = append(f.labels, label{kind: kindLoop, cost: f.cost})
		f.cost = min(f.cost, 0)
	case opElse:
		l := f.top()
		l.kind, l.cost, f.cost = kindElse, max(l.cost, f.cost), l.start
	case opEnd:
		return f.end()
	case opBr, opBrIf:
		f.branch(in.x)
	case opBrTable:
		r := reader{b: f.b, at: in.arg, end: end}
		for range r.u32() + 1 {
			f.branch(r.u32())
		}
	case opReturn:
		f.branch(uint32(len(f.labels) - 1))
	}
	if in.op == opBr || in.op == opBrTable || in.op == opReturn {
		f.cost = dead
	}
	return label{}
}

func (f *flow) branch(depth uint32) {
	l := &f.labels[len(f.labels)-1-int(depth)]
	l.cost = max(l.cost, f.cost)
}

func (f *flow) end() label {
	l := *f.top()
	f.labels = f.labels[:len(f.labels)-1]
	if l.kind == kindIf {
		l.cost = max(l.cost, l.start) // there is no else
	}
	if l.kind != kindLoop {
		f.cost = max(f.cost, l.cost)
	}
	if len(f.labels) == 0 {
		f.exit = max(f.cost, 0)
	}
	return l
}

// extra is what an instruction costs beside its bytes.
func (f *flow) extra(in *instr) int32 {
	switch in.op {
	case opCall:
		if in.x < f.hosts {
			return hostCost
		}
		return callCost
	case opCallIndirect:
		return anyCost
	case opMemoryGrow:
		return hostCost
	}
	return 0
}

// entry reports whether a function needs a check at its entry, once it was followed to its end.
func (f *flow) entry(calls bool) bool { return calls || f.exit > leafCost }
