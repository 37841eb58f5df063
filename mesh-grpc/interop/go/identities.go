package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	xds "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// identities gives each NAME=SPIFFE-ID its certificate at DIR/NAME.sock: over go-control-plane's secret discovery service and
// over the SPIFFE Workload API of go-spiffe's definitions, which also tells of the roots of the other trust domains there are. Each
// trust domain has a CA of its own. Each line of stdin is a rotation of everything: "overlap" issues by a new CA beside which the
// old one is trusted, "finish" by the same one, alone.
func identities(args []string) error {
	flags := flag.NewFlagSet("identities", flag.ExitOnError)
	dir := flags.String("dir", ".", "where the sockets go")
	if err := flags.Parse(args); err != nil {
		return err
	}
	trust := domains{}
	var agents []*agent
	for _, each := range flags.Args() {
		name, id, ok := cut(each)
		if !ok {
			return fmt.Errorf("%q is not NAME=SPIFFE-ID", each)
		}
		one, err := serveIdentity(filepath.Join(*dir, name+".sock"), id)
		if err != nil {
			return err
		}
		if trust[id.Host] == nil {
			trust[id.Host] = &roots{}
		}
		agents = append(agents, one)
	}
	if err := trust.renew(); err != nil {
		return err
	}
	for _, one := range agents {
		if err := one.rotate(trust); err != nil {
			return err
		}
	}
	say(map[string]string{"listening": *dir})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case `"overlap"`, "overlap":
			if err := trust.renew(); err != nil {
				return err
			}
		case `"finish"`, "finish":
			for _, one := range trust {
				one.all = one.all[len(one.all)-1:]
			}
		default:
			return fmt.Errorf("stdin: %q", lines.Text())
		}
		for _, one := range agents {
			if err := one.rotate(trust); err != nil {
				return err
			}
		}
		say(map[string]string{"rotated": lines.Text()})
	}
	return lines.Err()
}

// domains is the roots of each trust domain.
type domains map[string]*roots

func (d domains) renew() error {
	for _, one := range d {
		if err := one.renew(); err != nil {
			return err
		}
	}
	return nil
}

// others is the bundles of all trust domains but this one, as the Workload API has them.
func (d domains) others(own string) map[string][]byte {
	bundles := map[string][]byte{}
	for name, one := range d {
		if name != own {
			bundles["spiffe://"+name] = one.bundle()
		}
	}
	return bundles
}

// roots is the CAs that are trusted; the last one issues.
type roots struct {
	all    []*x509.Certificate
	issuer crypto.Signer
}

func (r *roots) renew() error {
	authority := template(fmt.Sprintf("interop CA %d", len(r.all)))
	authority.IsCA = true
	authority.KeyUsage = x509.KeyUsageCertSign
	authority.ExtKeyUsage = nil
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	r.all, r.issuer = append(r.all, certificate), key
	return nil
}

// issued is what one identity has now.
type issued struct {
	leaf, key, bundle []byte
	federated         map[string][]byte
}

func (r *roots) bundle() []byte {
	var bundle []byte
	for _, one := range r.all {
		bundle = append(bundle, one.Raw...)
	}
	return bundle
}

func (r *roots) issue(id *url.URL) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := template("")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.URIs = []*url.URL{id}
	der, err := x509.CreateCertificate(rand.Reader, leaf, r.all[len(r.all)-1], key.Public(), r.issuer)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &issued{leaf: der, key: secret, bundle: r.bundle()}, nil
}

// agent is one identity's socket.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	id        *url.URL
	snapshots cache.SnapshotCache
	mutex     sync.Mutex
	now       *issued
	version   int
	changed   chan struct{}
}

func serveIdentity(path string, id *url.URL) (*agent, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	snapshots := cache.NewSnapshotCache(false, everyNode{}, log.NewDefaultLogger())
	one := &agent{id: id, snapshots: snapshots, changed: make(chan struct{})}
	running := grpc.NewServer()
	secretservice.RegisterSecretDiscoveryServiceServer(running, xds.NewServer(context.Background(), snapshots, hearing()))
	workload.RegisterSpiffeWorkloadAPIServer(running, one)
	go func() {
		if err := running.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
	}()
	return one, nil
}

func (a *agent) rotate(all domains) error {
	trust := all[a.id.Host]
	now, err := trust.issue(a.id)
	if err != nil {
		return err
	}
	now.federated = all.others(a.id.Host)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.now, a.version = now, a.version+1
	close(a.changed)
	a.changed = make(chan struct{})
	var bundle []byte
	for _, one := range trust.all {
		bundle = append(bundle, text("CERTIFICATE", one.Raw)...)
	}
	secrets := []types.Resource{
		&tlsv3.Secret{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(text("CERTIFICATE", now.leaf)),
			PrivateKey:       inline(text("PRIVATE KEY", now.key)),
		}}},
		&tlsv3.Secret{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(bundle)},
		}},
	}
	snapshot, err := cache.NewSnapshot(fmt.Sprint(a.version), map[resource.Type][]types.Resource{resource.SecretType: secrets})
	if err != nil {
		return err
	}
	return a.snapshots.SetSnapshot(context.Background(), everyNode{}.ID(nil), snapshot)
}

func text(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func inline(pem []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: pem}}
}

// FetchX509SVID says everything at once, and again whenever it changes.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	asked, _ := metadata.FromIncomingContext(stream.Context())
	if header := asked.Get("workload.spiffe.io"); len(header) != 1 || header[0] != "true" {
		return status.Error(codes.InvalidArgument, "the security header is missing")
	}
	for {
		a.mutex.Lock()
		now, version, changed := a.now, a.version, a.changed
		a.mutex.Unlock()
		svid := &workload.X509SVID{SpiffeId: a.id.String(), X509Svid: now.leaf, X509SvidKey: now.key, Bundle: now.bundle}
		answer := &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid}, FederatedBundles: now.federated}
		if err := stream.Send(answer); err != nil {
			return err
		}
		say(map[string]string{"fetched": fmt.Sprint(version)})
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
