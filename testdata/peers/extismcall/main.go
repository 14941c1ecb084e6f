// Command extismcall is the contender of the rows that call the host from a module: a host function of Extism's SDK for
// Go, called by a guest in C.
package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	extism "github.com/extism/go-sdk"

	"github.com/delivery-station/ds/testdata/peers/stock"
)

//go:embed guest.wasm
var guest []byte

func main() {
	calls := flag.Int("calls", 20000, "calls to make, a multiple of 100")
	size := flag.Int("size", 64, "bytes of the reply")
	flag.Parse()
	if err := run(context.Background(), *calls, *size); err != nil {
		fmt.Fprintln(os.Stderr, "extismcall:", err)
		os.Exit(1)
	}
}

// counter answers calls and takes the time from one to the hundredth after it.
type counter struct {
	value string
	n     int
	bytes int
	at    time.Time
	times []int64
	err   error
}

const block = 100

func (c *counter) get(_ context.Context, p *extism.CurrentPlugin, stack []uint64) {
	if c.n%block == 0 {
		now := time.Now()
		if c.n > 0 {
			c.times = append(c.times, now.Sub(c.at).Nanoseconds()/block)
		}
		c.at = now
	}
	c.n++
	key, err := p.ReadString(stack[0])
	if err == nil && key != stock.Key {
		err = fmt.Errorf("no key %q", key)
	}
	if err == nil {
		c.bytes += len(c.value)
		stack[0], err = p.WriteString(c.value)
	}
	if err != nil && c.err == nil {
		c.err = err
	}
}

func run(ctx context.Context, calls, size int) error {
	c := &counter{value: strings.Repeat("x", size)}
	get := extism.NewHostFunctionWithStack("get", c.get, []extism.ValueType{extism.ValueTypePTR}, []extism.ValueType{extism.ValueTypePTR})
	manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: guest}}}
	p, err := extism.NewPlugin(ctx, manifest, extism.PluginConfig{}, []extism.HostFunction{get})
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	// One more call ends the last block.
	code, _, err := p.Call("run", binary.LittleEndian.AppendUint64(nil, uint64(calls)+1))
	if err == nil {
		err = c.err
	}
	if err == nil && (code != 0 || len(c.times)*block != calls) {
		err = fmt.Errorf("exit code %d after %d calls", code, c.n)
	}
	if err != nil {
		return err
	}
	slices.Sort(c.times)
	_, err = fmt.Printf("calls %d bytes %d ns %d\n", calls, c.bytes-size, c.times[len(c.times)/2])
	return err
}
