// goguest is a guest of the tests of runtime/wasm, built for wasip1: what the Go runtime and library need of
// the host beside what C guests show.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	switch word := os.Args[1]; word {
	case "files":
		wd, err := os.Getwd()
		fmt.Println("wd", wd, err)
		b, err := os.ReadFile("in.txt")
		fmt.Printf("in.txt %q %v\n", b, err)
		entries, err := os.ReadDir("/cwd")
		for _, e := range entries {
			fmt.Println("entry", e.Name(), e.IsDir())
		}
		fmt.Println("ls", err)
		_, err = os.Stat("/etc/passwd")
		fmt.Println("outside", err)
		f, err := os.CreateTemp("", "x")
		if err == nil {
			_, err = f.WriteString("temporary")
		}
		fmt.Println("temp", err)
		fmt.Println("readonly", os.WriteFile("in.txt", nil, 0o600))
	case "echo":
		n, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintln(os.Stderr, n, err)
	case "sleep":
		time.Sleep(time.Hour)
	case "goroutines":
		done := make(chan int)
		for i := range 4 {
			go func() { time.Sleep(time.Duration(i) * time.Millisecond); done <- i }()
		}
		for range 4 {
			fmt.Println(<-done)
		}
	case "loop":
		for i := 0; ; i++ {
			if i < 0 {
				return
			}
		}
	case "panic":
		panic("planted")
	case "oom":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			all[len(all)-1][0] = 1
		}
	}
}
