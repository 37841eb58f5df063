package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// certificates issues DIR/ca.pem, and NAME.pem with NAME.key for each NAME=SPIFFE-ID: certificates that none of our own
// code has made.
func certificates(args []string) error {
	flags := flag.NewFlagSet("certificates", flag.ExitOnError)
	dir := flags.String("dir", ".", "where the files go")
	faulty := flags.Bool("edges", false, "whether each certificate is issued with each fault of `edges`, too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	authority := template("interop CA")
	authority.IsCA = true
	authority.KeyUsage = x509.KeyUsageCertSign
	authority.ExtKeyUsage = nil
	authorityKey, err := issue(*dir, "ca", authority, authority, nil)
	if err != nil {
		return err
	}
	for _, each := range flags.Args() {
		name, id, ok := cut(each)
		if !ok {
			return fmt.Errorf("%q is not NAME=SPIFFE-ID", each)
		}
		leaf := template(name)
		leaf.KeyUsage = x509.KeyUsageDigitalSignature
		leaf.URIs = []*url.URL{id}
		// For a client without SPIFFE matching that goes by the address.
		leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		if _, err := issue(*dir, name, leaf, authority, authorityKey); err != nil {
			return err
		}
		if *faulty {
			if err := issueEdges(*dir, name, id, authority, authorityKey); err != nil {
				return err
			}
		}
	}
	return nil
}

// edges is what a certificate of a peer must not be, by the name of its file.
var edges = map[string]func(leaf *x509.Certificate){
	"expired":     func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-time.Minute) },
	"future":      func(leaf *x509.Certificate) { leaf.NotBefore = time.Now().Add(time.Hour) },
	"server-only": func(leaf *x509.Certificate) { leaf.ExtKeyUsage = leaf.ExtKeyUsage[:1] },
	"authority":   func(leaf *x509.Certificate) { leaf.IsCA, leaf.KeyUsage = true, leaf.KeyUsage|x509.KeyUsageCertSign },
	"two-names":   func(leaf *x509.Certificate) { leaf.URIs = append(leaf.URIs, leaf.URIs[0].JoinPath("too")) },
	"no-name":     func(leaf *x509.Certificate) { leaf.URIs, leaf.DNSNames = nil, []string{"interop.test"} },
	"https": func(leaf *x509.Certificate) {
		leaf.URIs = []*url.URL{{Scheme: "https", Host: "interop.test", Path: leaf.URIs[0].Path}}
	},
	"dots": func(leaf *x509.Certificate) {
		leaf.URIs = []*url.URL{changed(leaf.URIs[0], func(id *url.URL) { id.Path += "/../nobody" })}
	},
	"query": func(leaf *x509.Certificate) {
		leaf.URIs = []*url.URL{changed(leaf.URIs[0], func(id *url.URL) { id.RawQuery = "x" })}
	},
}

func changed(id *url.URL, change func(*url.URL)) *url.URL {
	other := *id
	change(&other)
	return &other
}

// issueEdges writes DIR/NAME-FAULT.pem for each fault, and DIR/NAME-foreign.pem by a CA that nobody knows.
func issueEdges(dir, name string, id *url.URL, authority *x509.Certificate, key crypto.Signer) error {
	leaf := func() *x509.Certificate {
		made := template(name)
		made.KeyUsage, made.URIs = x509.KeyUsageDigitalSignature, []*url.URL{id}
		return made
	}
	for fault, makes := range edges {
		faulty := leaf()
		makes(faulty)
		if _, err := issue(dir, name+"-"+fault, faulty, authority, key); err != nil {
			return err
		}
	}
	// Of the same name, and with another key.
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = issue(dir, name+"-foreign", leaf(), authority, foreign)
	return err
}

func cut(each string) (name string, id *url.URL, ok bool) {
	for i := range each {
		if each[i] == '=' {
			id, err := url.Parse(each[i+1:])
			return each[:i], id, err == nil && id.Scheme == "spiffe"
		}
	}
	return "", nil, false
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err) // Without randomness there are no certificates.
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// issue writes a certificate and its new key; without an issuer's key it signs itself.
func issue(dir, name string, leaf, issuer *x509.Certificate, issuerKey crypto.Signer) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if issuerKey == nil {
		issuerKey = key
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := write(filepath.Join(dir, name+".pem"), "CERTIFICATE", signed); err != nil {
		return nil, err
	}
	return key, write(filepath.Join(dir, name+".key"), "PRIVATE KEY", secret)
}

func write(path, kind string, bytes []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600)
}
