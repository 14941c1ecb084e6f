// kernels is a guest of the tests and benchmarks of wasmcheck, built for wasip1: programs of different shape, each
// of which prints what it computed. usage: kernels NAME ROUNDS
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"slices"
	"strconv"
)

func main() {
	rounds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	fmt.Println(kernels[os.Args[1]](rounds))
}

var kernels = map[string]func(n int) any{
	"loop": func(n int) any {
		x := uint32(1)
		for range n * 1_000_000 {
			x ^= x << 13
			x ^= x >> 17
			x ^= x << 5
		}
		return x
	},
	"fib": func(n int) any {
		sum := 0
		for range n {
			sum += fib(24)
		}
		return sum
	},
	"sort": func(n int) any {
		s, x := make([]uint32, 20_000), uint32(1)
		for range n {
			for i := range s {
				x = x*1664525 + 1013904223
				s[i] = x
			}
			slices.Sort(s)
		}
		return s[100]
	},
	"sha256": func(n int) any {
		sum := [32]byte{}
		data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for range n {
			copy(data, sum[:])
			sum = sha256.Sum256(data)
		}
		return fmt.Sprintf("%x", sum)
	},
	"json": func(n int) any {
		v := any(nil)
		text := []byte(`{"a":[1,2,3,{"b":"text with \"quotes\" and ünicode"}],"c":{"d":null,"e":true,"f":1.5e10},"g":["x","y","z"]}`)
		for range n * 100 {
			if err := json.Unmarshal(text, &v); err != nil {
				panic(err)
			}
			again, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			text = again
		}
		return string(text)
	},
	"regexp": func(n int) any {
		re := regexp.MustCompile(`(\w+)@(\w+)\.(com|org)|[0-9]{3,5}-x+`)
		text := bytes.Repeat([]byte("some words, me@example.com and 1234-xxx, nothing else here; "), 20)
		found := 0
		for range n * 4 {
			found += len(re.FindAllIndex(text, -1))
		}
		return found
	},
	"map": func(n int) any {
		m, x := map[uint32]uint32{}, uint32(1)
		for range n * 20_000 {
			x = x*1664525 + 1013904223
			m[x>>20] += x
		}
		sum := uint32(0)
		for k, v := range m {
			sum += k ^ v
		}
		return sum
	},
	"copy": func(n int) any {
		a, b := make([]byte, 1<<20), make([]byte, 1<<20)
		for i := range n * 20 {
			copy(a[i:], b)
			copy(b, a)
			a[i] = byte(i)
		}
		return a[17]
	},
	"matmul": func(n int) any {
		const size = 96
		var a, b, c [size][size]float64
		for i := range size {
			for j := range size {
				a[i][j], b[i][j] = float64(i+j), float64(i-j)
			}
		}
		for range n {
			for i := range size {
				for j := range size {
					sum := 0.0
					for k := range size {
						sum += a[i][k] * b[k][j]
					}
					c[i][j] += sum
				}
			}
		}
		return c[3][5]
	},
	"crc": func(n int) any {
		table, data, sum := crc32.MakeTable(crc32.Koopman), make([]byte, 64<<10), uint32(0)
		for range n {
			sum = crc32.Update(sum, table, data)
		}
		return sum
	},
	"goroutines": func(n int) any {
		in, out := make(chan int), make(chan int)
		for range 4 {
			go func() {
				for v := range in {
					out <- v * v
				}
			}()
		}
		sum := 0
		for i := range n * 100 {
			in <- i
			sum += <-out
		}
		return sum
	},
	"panic": func(n int) any {
		var s []int
		return s[n]
	},
	"exit": func(n int) any {
		os.Exit(n)
		return nil
	},
	"deep": func(n int) any {
		defer func() { fmt.Println("recovered", recover()) }()
		return deep(n * 1000)
	},
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func deep(n int) int {
	if n == 0 {
		panic("at the bottom")
	}
	return deep(n-1) + 1
}
