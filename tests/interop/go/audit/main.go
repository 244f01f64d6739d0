// Command audit checks a log served at a URL with golang.org/x/mod/sumdb: the checkpoint's signature with note; with tlog, over the
// log's hash tiles, the inclusion of every record below it, and that it extends a checkpoint kept earlier.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of a tile, fixed by tlog-tiles

var (
	url   = flag.String("url", "", "the log's prefix, without a slash at its end")
	vkey  = flag.String("vkey", "", "the log's verifier key")
	token = flag.String("token", "", "the bearer token for entry bundles")
	kept  = flag.String("kept", "", "a file with a checkpoint of the same log kept earlier")
	step  = flag.Int64("step", 1, "check every step-th record")
)

func main() {
	flag.Parse()
	if err := audit(); err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
}

func audit() error {
	data, err := fetch("checkpoint")
	if err != nil {
		return err
	}
	tree, err := open(data)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	// The reader compares every tile it fetches with the tree's root before it gives out a hash.
	hashes := tlog.TileHashReader(tree, make(tiles))
	for index := int64(0); index < tree.N; index += *step {
		if err := included(tree, hashes, index); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
	}
	if *kept != "" {
		if err := extends(tree, hashes); err != nil {
			return fmt.Errorf("kept checkpoint: %w", err)
		}
	}
	fmt.Printf("%d %s\n", tree.N, tree.Hash)
	return nil
}

// open verifies a checkpoint's signature and reads its tree head.
func open(data []byte) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(*vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	signed, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), signed.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("not a root hash: %q", lines[2])
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

func included(tree tlog.Tree, hashes tlog.HashReader, index int64) error {
	proof, err := tlog.ProveRecord(tree.N, index, hashes)
	if err != nil {
		return err
	}
	record, err := entry(tree.N, index)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(record))
}

func extends(tree tlog.Tree, hashes tlog.HashReader) error {
	data, err := os.ReadFile(*kept)
	if err != nil {
		return err
	}
	old, err := open(data)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
}

// tiles fetches hash tiles and keeps those that were found authentic. The paths of sumdb have the tile height in them, those of tlog-tiles
// have not.
type tiles map[tlog.Tile][]byte

func (tiles) Height() int { return height }

func (kept tiles) SaveTiles(found []tlog.Tile, data [][]byte) {
	for i, tile := range found {
		kept[tile] = data[i]
	}
}

func (kept tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		data, ok := kept[tile]
		if !ok {
			var err error
			if data, err = fetch("tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))); err != nil {
				return nil, err
			}
		}
		all = append(all, data)
	}
	return all, nil
}

var bundle = struct {
	path    string
	entries [][]byte
}{}

// entry returns one record, from the bundle fetched last if it is in there.
func entry(size, index int64) ([]byte, error) {
	n, width := index>>height, 1<<height
	if rest := size - n<<height; rest < int64(width) {
		width = int(rest)
	}
	path := "tile/entries/" + strings.TrimPrefix(tlog.Tile{H: height, L: 0, N: n, W: width}.Path(), fmt.Sprintf("tile/%d/0/", height))
	if bundle.path != path {
		data, err := fetch(path)
		if err != nil {
			return nil, err
		}
		bundle.path, bundle.entries = path, nil
		for len(data) >= 2 {
			length := 2 + int(binary.BigEndian.Uint16(data))
			if length > len(data) {
				return nil, errors.New("the bundle ends early")
			}
			bundle.entries, data = append(bundle.entries, data[2:length]), data[length:]
		}
		if len(bundle.entries) != width || len(data) != 0 {
			return nil, fmt.Errorf("%s has %d records", path, len(bundle.entries))
		}
	}
	return bundle.entries[index&(1<<height-1)], nil
}

func fetch(path string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, *url+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if *token != "" && strings.HasPrefix(path, "tile/entries/") {
		request.Header.Set("Authorization", "Bearer "+*token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, data)
	}
	return data, err
}
