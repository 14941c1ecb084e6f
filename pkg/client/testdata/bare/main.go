// Command bare is what hello is compared with.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("Hello", os.Args) }
