// Peer is every Go program that the interop tests talk to: an xDS server built on go-control-plane's snapshot cache, a
// grpc-go client, a grpc-go server, and the issuer of their certificates.
//
// What it has to say goes to stdout, one JSON object a line; what it is told comes from stdin, one command a line. It
// ends when stdin does, so that no peer outlives the driver.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

var commands = map[string]func(args []string) error{
	"certificates":  certificates,
	"client":        client,
	"control-plane": controlPlane,
	"identities":    identities,
	"istio-ca":      istioCA,
	"scripted":      scripted,
	"server":        server,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: peer certificates|client|control-plane|identities|istio-ca|scripted|server [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

var saying sync.Mutex

// say prints one line for the driver.
func say(line any) {
	saying.Lock()
	defer saying.Unlock()
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // Only our own structs get here.
	}
	fmt.Println(string(text))
}
