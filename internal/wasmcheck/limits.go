package wasmcheck

// The limits, with the largest that CPython, Ruby, Perl, PHP and large Go modules need. A limit is raised only for a
// real module that needs it, listed in testdata/guests/corpus.txt.
const (
	maxCode    = 48 << 20  // 36.5 MB
	maxBody    = 512 << 10 // 208 KB; 741 KB in one body are 585 MiB in the compiler
	maxItems   = 100_000   // types, imports, functions …, each; Go's linker makes exactly that many data segments
	maxValues  = 1000      // parameters, results
	maxLocals  = 10_000    // with parameters; 191
	maxDepth   = 5000      // blocks in blocks; 2 397
	maxLoops   = 64        // loops in loops; 8
	maxBranch  = 65_520    // entries of one br_table; 3 827
	maxTables  = 16        // 1
	maxTable   = 1_000_000 // elements of one table and of all segments; 29 748
	maxName    = 256
	maxCustom  = 10_000 // custom sections; about 20
	maxPages   = 65536
	maxMetBody = 640 << 10 // of a body after Meter
	maxMetCode = 56 << 20

	maxFuncBranches = 20_000 // 3 828
	maxBranches     = 100_000
	branchesPerByte = 10 // code bytes for one more entry

	// The work of the compiler's register allocation and of its phi values, as three products. Locals count
	// parameters; blocks and calls count those that Meter adds, so that a module which passes also passes afterwards.
	maxFuncLoopCost  = 500_000   // (locals + 1) x depth of each loop; 133 824
	maxLoopCost      = 2_000_000 // 0.42 M
	maxFuncBlockCost = 100_000   // (locals + 1) x blocks and ifs, and 8 per body byte; 677 110 in 138 KB
	blockCostPerByte = 8
	maxBlockCost     = 4_000_000 // and 0.5 per code byte; 8.2 M at 36.5 MB
	bytesPerBlock    = 2
	maxFuncCallCost  = 10_000_000 // (locals + 1) x calls; 0.38 M
	maxCallCost      = 20_000_000 // 2.0 M
)

// Most bytes that Meter adds to a body: for a check, for a bulk operation, for a call, for the declaration of a local
// and its count.
const (
	checkRoom = 36
	bulkRoom  = 64
	callRoom  = 1
	localRoom = 8
)
