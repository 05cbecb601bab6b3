package udm_test

import (
	"fmt"
	"log"

	"udm"
)

// A disk of two halves, read and written in bytes. In place of mem:1M put the
// absolute path of a file or disk.
func ExampleOpen() {
	disk, err := udm.Open("0 2048 linear mem:1M:a 0\n2048 2048 linear mem:1M:b 0")
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.WriteAt([]byte("hello"), 1<<20-2); err != nil { // on both
		log.Fatal(err)
	}
	p := make([]byte, 5)
	if _, err := disk.ReadAt(p, 1<<20-2); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes\n", p, disk.Size())
	// Output: hello, 2097152 bytes
}

// A thin volume in a pool: devices of one stack stand on each other.
func ExampleStack() {
	s := udm.New()
	defer s.Close()
	pool, err := s.Create("pool", "0 16384 thin-pool mem:4M mem:8M 128 0")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := pool.Message("create_thin 0"); err != nil {
		log.Fatal(err)
	}
	disk, err := s.Create("disk", "0 1048576 thin /dev/mapper/pool 0")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := disk.WriteAt([]byte("hello"), 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(disk.Size(), disk.Status())
	// Output: 536870912 0 1048576 thin 128 127
}
