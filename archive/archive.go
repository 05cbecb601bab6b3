package archive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Snapshots store runs of sectors in chunks of at most this size, which lie in one of the
// device's ranges of it.
const (
	ChunkSize    = 1 << 20
	sector       = 512
	chunkSectors = ChunkSize / sector
)

// version is that of the format of new archives. Those of version 1, whose indexes have no
// pages, stay what they are.
const version = 2

// Keys of objects.
const (
	configKey = "config"
	lockKey   = "lock"
	snapshots = "snapshots/"
	writers   = "writers/"
	packs     = "packs/"
)

// config is the object that makes a store an archive.
type config struct {
	Format    string `json:"format"` // configFormat
	Version   int    `json:"version"`
	Chunk     int    `json:"chunk"` // bytes
	Salt      string `json:"salt"`
	Encrypted bool   `json:"encrypted"`
	Check     string `json:"check,omitempty"` // tells a wrong key
}

const configFormat = "udm archive"

// Archive is an open archive. Its methods are safe for concurrent use.
type Archive struct {
	store   Store
	codec   *codec
	version int
	now     func() time.Time
}

// Init makes an archive in an empty store. With a key, all contents and names of snapshots
// are encrypted.
func Init(ctx context.Context, s Store, key []byte) error { return initAs(ctx, s, key, version) }

func initAs(ctx context.Context, s Store, key []byte, version int) error {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	c, err := newCodec(key, salt)
	if err != nil {
		return err
	}
	p, err := json.Marshal(config{configFormat, version, ChunkSize, hex.EncodeToString(salt), key != nil, c.check()})
	if err != nil {
		return err
	}
	if err = s.PutNew(ctx, configKey, p); errors.Is(err, fs.ErrExist) {
		return errors.New("there is an archive already")
	}
	return err
}

// Open opens an archive. key is nil for one that is not encrypted.
func Open(ctx context.Context, s Store, key []byte) (*Archive, error) {
	p, err := s.Get(ctx, configKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no archive; make one with udm archive init")
	}
	if err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(p, &c); err != nil || c.Format != configFormat {
		return nil, errors.New("the object config is not that of an archive")
	}
	salt, err := hex.DecodeString(c.Salt)
	switch {
	case err != nil || c.Version < 1 || c.Version > version || c.Chunk != ChunkSize:
		return nil, fmt.Errorf("the archive has format %d with chunks of %d bytes, which this udm does not know; use a newer one", c.Version, c.Chunk)
	case c.Encrypted && key == nil:
		return nil, errors.New("the archive is encrypted; give its key file")
	case !c.Encrypted && key != nil:
		return nil, errors.New("the archive is not encrypted; leave the key file out")
	}
	codec, err := newCodec(key, salt)
	if err == nil && codec.check() != c.Check {
		err = errors.New("this is not the key of the archive")
	}
	return &Archive{s, codec, c.Version, time.Now}, err
}

// ParseKey reads the content of a key file: 64 hexadecimal digits.
func ParseKey(text []byte) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, errors.New("a key file has 64 hexadecimal digits; make one with udm archive key")
	}
	return key, nil
}

// NewKey returns the content of a new key file.
func NewKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return append(hex.AppendEncode(nil, key), '\n')
}

// newID is the id of a snapshot to be.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

// List returns the snapshots, the oldest first.
func (a *Archive) List(ctx context.Context) (list []Info, err error) {
	err = a.each(ctx, nil, func(x *index) error {
		list = append(list, x.Info)
		return nil
	})
	slices.SortFunc(list, func(a, b Info) int { return a.Created.Compare(b.Created) })
	return list, err
}

// ids are those of the snapshots. The marks of what is gone are not read: an index is longer.
func (a *Archive) ids(ctx context.Context) (ids []string, err error) {
	err = a.store.List(ctx, snapshots, func(key string, size int64) error {
		if size > int64(len(goneMark)) {
			ids = append(ids, strings.TrimPrefix(key, snapshots))
		}
		return nil
	})
	return ids, err
}

// each calls fn with the index of each snapshot whose id is wanted; nil: all are. Pages are
// not read.
func (a *Archive) each(ctx context.Context, wanted func(id string) bool, fn func(*index) error) error {
	ids, err := a.ids(ctx)
	if wanted != nil {
		ids = slices.DeleteFunc(ids, func(id string) bool { return !wanted(id) })
	}
	for i := 0; i < len(ids) && err == nil; i++ {
		var x *index
		x, err = a.index(ctx, ids[i])
		switch {
		case isGone(err):
			err = nil
		case err == nil:
			err = fn(x)
		}
	}
	return err
}

// index reads an index without its pages.
func (a *Archive) index(ctx context.Context, id string) (*index, error) {
	p, err := a.store.Get(ctx, snapshots+id, 0, -1)
	if err != nil {
		return nil, err
	}
	return decode(a.codec, id, p)
}

var isID = regexp.MustCompile(`^[a-z2-7]{16}$`)

// find returns the snapshot with an id, or the only one with a name.
func (a *Archive) find(ctx context.Context, word string) (*index, error) {
	if isID.MatchString(word) {
		if x, err := a.index(ctx, word); !isGone(err) {
			return x, err
		}
	}
	var found *index
	err := a.each(ctx, nil, func(x *index) error {
		if x.Name == word && found != nil {
			return fmt.Errorf("several snapshots are named %s; give the id of one", word)
		}
		if x.Name == word {
			found = x
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("the archive has no snapshot %s", word)
	}
	return found, err
}

// Remove removes a snapshot. The space of what no other one has is freed by Prune. The mark
// that takes the place of the index sees that no request brings it back that is still on its
// way, though the backup has sent another one.
func (a *Archive) Remove(ctx context.Context, word string) error {
	x, err := a.find(ctx, word)
	if err != nil {
		return err
	}
	leases, err := a.leases(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if slices.Contains(l.Bases, x.ID) {
			return fmt.Errorf("%s is the base of %s, which is being archived; wait for that, or let udm archive prune end it if it has died", word, l.Name)
		}
	}
	return a.store.Put(ctx, snapshots+x.ID, []byte(goneMark))
}
