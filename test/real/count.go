// SPDX-License-Identifier: Apache-2.0

// Goroutines that send each other numbers; garbage is made and collected, timers run.
package main

import (
	"os"
	"strconv"
	"time"
)

const workers = 50

func worker(in <-chan uint64, out chan<- uint64) {
	var kept [][]byte
	for value := range in {
		kept = append(kept, make([]byte, 1000+value%5000))
		if len(kept) > 100 {
			kept = nil
		}
		for i := 0; i < 3000; i++ {
			value = value*6364136223846793005 + 1442695040888963407
		}
		out <- value ^ value>>33
	}
	close(out)
}

func main() {
	first := make(chan uint64)
	last := first
	for i := 0; i < workers; i++ {
		next := make(chan uint64, i%3)
		go worker(last, next)
		last = next
	}
	go func() {
		for range time.Tick(time.Millisecond) {
		}
	}()
	value := uint64(1)
	for step := 0; step < 40; step++ {
		for round := 0; round < 60; round++ {
			first <- value
			value = <-last
		}
		time.Sleep(time.Millisecond)
		os.Stdout.WriteString(strconv.Itoa(step) + " " + strconv.FormatUint(value, 16) + "\n")
	}
}
