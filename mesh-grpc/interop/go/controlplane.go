package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	xds "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// config is one line of stdin: everything that is served from then on.
type config struct {
	Version string   `json:"version"`
	Targets []target `json:"targets"`
	Servers []listen `json:"servers"`
}

// target is what a client dials.
type target struct {
	Name     string    `json:"name"`
	Clusters []cluster `json:"clusters"`
}

// cluster is a share of a target's requests.
type cluster struct {
	Name     string   `json:"name"`
	Weight   uint32   `json:"weight"`
	Backends []string `json:"backends"`
	TLS      *tls     `json:"tls"`
	// Elsewhere are more backends, in a locality of their own.
	Elsewhere []string `json:"elsewhere"`
	// Weigh is "responses" or "stream": how backends report the load that they are weighed by. Without it nobody weighs them.
	Weigh string `json:"weigh"`
	// Drop is the percentage of requests to drop, under the category "shed".
	Drop uint32 `json:"drop"`
	// Load has requests reported, with these metrics of the backends' own reports.
	Load []string `json:"load"`
}

// listen is an address that a server listens on.
type listen struct {
	Address string `json:"address"`
	TLS     *tls   `json:"tls"`
}

// tls names a certificate provider of the bootstrap, and whom the peer must be.
type tls struct {
	Instance string `json:"instance"`
	SPIFFE   string `json:"spiffe"`
}

// everyNode serves all nodes alike.
type everyNode struct{}

func (everyNode) ID(*core.Node) string { return "everyone" }

// controlPlane serves over ADS what stdin says, and tells of every ACK and NACK.
func controlPlane(args []string) error {
	flags := flag.NewFlagSet("control-plane", flag.ExitOnError)
	address := flags.String("listen", "127.0.0.1:0", "address")
	only := flags.String("load-of", "", "the one cluster whose load to ask for; all without")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	// Not in its ADS mode, which answers nobody who asks for a part of what there is, as every gRPC does.
	snapshots := cache.NewSnapshotCache(false, everyNode{}, log.NewDefaultLogger())
	running := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(running, xds.NewServer(context.Background(), snapshots, hearing()))
	loadstats.RegisterLoadReportingServiceServer(running, loadReports{only: *only})
	failed := make(chan error, 1)
	go func() { failed <- running.Serve(listener) }()
	say(map[string]string{"listening": listener.Addr().String()})
	if err := follow(snapshots); err != nil {
		return err
	}
	running.Stop()
	return <-failed
}

// follow puts each line of stdin in force.
func follow(snapshots cache.SnapshotCache) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var wanted config
		if err := json.Unmarshal(lines.Bytes(), &wanted); err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		snapshot, err := wanted.snapshot()
		if err != nil {
			return err
		}
		if err := snapshots.SetSnapshot(context.Background(), everyNode{}.ID(nil), snapshot); err != nil {
			return err
		}
		say(map[string]string{"set": wanted.Version})
	}
	return lines.Err()
}

// hearing says what clients ask for, and what they took and refused.
func hearing() xds.Callbacks {
	sent := sync.Map{} // The names in each incremental response, by its nonce.
	return xds.CallbackFuncs{
		StreamDeltaResponseFunc: func(stream int64, _ *discovery.DeltaDiscoveryRequest, response *discovery.DeltaDiscoveryResponse) {
			names := append([]string{}, response.GetRemovedResources()...)
			for _, resource := range response.GetResources() {
				names = append(names, resource.GetName())
			}
			sent.Store(fmt.Sprint(stream, response.GetNonce()), names)
		},
		StreamDeltaRequestFunc: func(stream int64, request *discovery.DeltaDiscoveryRequest) error {
			names, _ := sent.Load(fmt.Sprint(stream, request.GetResponseNonce()))
			say(map[string]any{
				"type":        request.GetTypeUrl(),
				"said":        said(request.GetErrorDetail() != nil, request.GetResponseNonce()),
				"why":         request.GetErrorDetail().GetMessage(),
				"subscribe":   request.GetResourceNamesSubscribe(),
				"unsubscribe": request.GetResourceNamesUnsubscribe(),
				"has":         request.GetInitialResourceVersions(),
				"sent":        names,
			})
			return nil
		},
		StreamRequestFunc: func(_ int64, request *discovery.DiscoveryRequest) error {
			say(map[string]string{
				"type":    request.GetTypeUrl(),
				"version": request.GetVersionInfo(),
				"said":    said(request.GetErrorDetail() != nil, request.GetResponseNonce()),
				"why":     request.GetErrorDetail().GetMessage(),
			})
			return nil
		},
	}
}

// said is what a request says about the response before it.
func said(isError bool, nonce string) string {
	switch {
	case isError:
		return "NACK"
	case nonce != "":
		return "ACK"
	default:
		return "subscribe"
	}
}
