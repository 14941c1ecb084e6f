package wasmcheck_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// kernel is one program of the measurement.
type kernel struct {
	name   string
	module []byte
	given  given
}

// tightLoop adds one to a local n times: what a check at a loop head costs at most.
func tightLoop(n int32) []byte {
	c := cat([]byte{0x03, 0x40, 0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41}, s(int64(n)), []byte{0x48, 0x0d, 0, 0x0b})
	return build{fns: []fn{{locals: [][]byte{local(1, 0x7f)}, code: c}}}.bytes()
}

// callTree is fib(n): what a check at a function entry costs at most.
func callTree(n int32) []byte {
	body := cat([]byte{0x20, 0, 0x41, 2, 0x48, 0x04, 0x7f, 0x20, 0, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x20, 0, 0x41, 2, 0x6b, 0x10, 1, 0x6a, 0x0b})
	return build{types: []string{"i>i"}, fns: []fn{{code: cat([]byte{0x41}, s(int64(n)), []byte{0x10, 1, 0x1a})}, {typ: 1, code: body}}}.bytes()
}

func benchKernels(b *testing.B) (ks []kernel) {
	guest := goGuest(b)
	for name, rounds := range map[string]int{
		"loop": 30, "fib": 30, "sort": 10, "sha256": 12, "json": 4, "regexp": 5, "map": 10, "copy": 15, "matmul": 10, "crc": 60,
	} {
		ks = append(ks, kernel{"go/" + name, guest, given{args: []string{name, strconv.Itoa(rounds)}}})
	}
	ks = append(ks, kernel{"wat/loop", tightLoop(100_000_000), given{}}, kernel{"wat/fib", callTree(30), given{}})
	if dir := os.Getenv("DS_TEST_GUESTS"); dir != "" {
		for _, line := range strings.Split(strings.TrimSpace(string(readMaybe(filepath.Join(dir, "bench.args")))), "\n") {
			if words := strings.Split(line, "|"); len(words) > 2 {
				ks = append(ks, kernel{words[0], read(b, filepath.Join(dir, words[1])), given{args: words[2:], dir: dir}})
			}
		}
	}
	return ks
}

func readMaybe(file string) []byte {
	b, _ := os.ReadFile(file)
	return b
}

// BenchmarkMeter prints rows M1 and M2 of the performance contract: for each kernel the time of the metered module
// divided by that of the plain one, and by that of the plain one with the engine's own stop switch. The three are
// interleaved and the smallest processor time of each counts. Run it with -benchtime 5x.
func BenchmarkMeter(b *testing.B) {
	runtime.LockOSThread()
	plain, closing := newLab(b, wazero.NewRuntimeConfig()), newLab(b, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	var m1, m2 float64
	ks := benchKernels(b)
	for _, k := range ks {
		b.Run(k.name, func(b *testing.B) {
			runtime.LockOSThread()
			rewritten, err := wasmcheck.Meter(k.module)
			if err != nil {
				b.Fatal(err)
			}
			labs := []*lab{plain, plain, closing}
			mods := []wazero.CompiledModule{plain.compile(b, k.module), plain.compile(b, rewritten), closing.compile(b, k.module)}
			best := [3]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}
			for b.Loop() {
				for i, m := range mods {
					begin := cpuTime()
					if r := labs[i].run(b, m, k.given); r.trap != "" {
						b.Fatal(r)
					}
					best[i] = min(best[i], cpuTime()-begin)
				}
			}
			b.ReportMetric(best[1].Seconds()/best[0].Seconds(), "metered/plain")
			b.ReportMetric(best[1].Seconds()/best[2].Seconds(), "metered/close")
			b.ReportMetric(0, "ns/op")
			m1 += math.Log(best[1].Seconds() / best[0].Seconds())
			m2 += math.Log(best[1].Seconds() / best[2].Seconds())
		})
	}
	n := float64(len(ks))
	fmt.Printf("geomean of %d kernels: metered/plain %.3f, metered/close %.3f\n", len(ks), math.Exp(m1/n), math.Exp(m2/n))
}
