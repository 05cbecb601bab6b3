# udm: make alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export CGO_ENABLED ?= 0
SECONDS ?= 60
FUZZTIME ?= 60s

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build udm and run its main job: udm quickstart
	./bin/udm quickstart

build: ## build the one static binary, bin/udm
	go build -o bin/udm ./cmd/udm

build-ceph: ## build bin/udm with librbd, for disks rbd:POOL/IMAGE (cgo; Debian: librbd-dev)
	CGO_ENABLED=1 go build -tags ceph -o bin/udm ./cmd/udm

man: build ## write the man pages to docs/man
	./bin/udm man docs/man

PREFIX ?= /usr/local
UDM ?= bin/udm
ROOM = $(DESTDIR)$(PREFIX)
BASH = $(ROOM)/share/bash-completion/completions/udm
ZSH = $(ROOM)/share/zsh/site-functions/_udm
FISH = $(ROOM)/share/fish/vendor_completions.d/udm.fish
THIN = cache_check cache_dump cache_metadata_size cache_repair cache_restore cache_writeback era_check era_dump era_invalidate era_restore thin_check thin_delta thin_dump thin_ls thin_metadata_size thin_repair thin_restore thin_rmap thin_trim
UNITS = $(notdir $(wildcard packaging/systemd/*))

install: $(if $(filter bin/udm,$(UDM)),build) ## install udm, man pages, completions, systemd units, alerts and a dashboard (PREFIX, DESTDIR; THIN_LINKS=yes: also as thin_check and its like)
	install -D -m 755 $(UDM) $(ROOM)/bin/udm
	umask 022; $(UDM) man $(ROOM)/share/man/man1
	install -d $(dir $(BASH)) $(dir $(ZSH)) $(dir $(FISH)) $(ROOM)/lib/systemd/system
	umask 022; $(UDM) completion bash > $(BASH)
	umask 022; $(UDM) completion zsh > $(ZSH)
	umask 022; $(UDM) completion fish > $(FISH)
	umask 022; for unit in $(UNITS); do \
		sed 's|@BINDIR@|$(PREFIX)/bin|' packaging/systemd/$$unit > $(ROOM)/lib/systemd/system/$$unit || exit 1; \
	done
	install -D -m 644 -t $(ROOM)/share/udm packaging/prometheus/udm.rules.yml packaging/grafana/udm.json
	$(if $(filter yes,$(THIN_LINKS)),for name in $(THIN); do ln -sf udm $(ROOM)/bin/$$name || exit 1; done)

uninstall: ## remove what install has installed
	rm -f $(ROOM)/bin/udm $(ROOM)/share/man/man1/udm.1 $(ROOM)/share/man/man1/udm-*.1 $(BASH) $(ZSH) $(FISH) \
		$(addprefix $(ROOM)/lib/systemd/system/,$(UNITS)) $(ROOM)/share/udm/udm.rules.yml $(ROOM)/share/udm/udm.json
	for link in $(addprefix $(ROOM)/bin/,$(THIN)); do \
		if [ "$$(readlink $$link)" = udm ]; then rm -f $$link; fi; \
	done

DEB_VERSION ?= $(shell git log -1 --format='0~%cd.%h' --date=format:%Y%m%d%H%M%S)

deb: build ## build bin/udm_VERSION_ARCH.deb (dpkg-deb; no root)
	rm -rf bin/deb
	$(MAKE) install DESTDIR=$(CURDIR)/bin/deb PREFIX=/usr
	./packaging/debian/build.sh bin/deb $(DEB_VERSION) bin

test-deb: ## install, upgrade, remove and purge the package in a copy of this system (root, overlayfs)
	$(MAKE) deb DEB_VERSION=1
	./packaging/debian/build.sh bin/deb 2 bin
	./test/deb.sh bin/udm_1_*.deb bin/udm_2_*.deb

packages: ## install the Debian packages that the tests use, when that is allowed
	@./test/packages.sh

# A clock that ends a test binary must not decide on a busy machine: it is for hangs
# that no watchdog of the tests sees (test/watchdog), and short enough that .ci/run
# still tells which test hangs. Of the packages the longest takes two minutes on two
# idle processors, and all scripts of test-kernel twenty. Vet is a part of lint.
FLAGS = -vet=off -timeout 45m

# Samples begin with another one at each commit.
EVERY ?= 1
SAMPLE = -every $(EVERY) -first 0x$(shell git rev-parse --short=7 HEAD 2>/dev/null || echo 0)

# Tests make and drop many disks in memory: collecting garbage less often takes a
# third less processor time. The limit is soft, for each test binary. Several packages
# wait for servers and kernels, so four run at once. Half of the time that is left is
# compiling and linking, so there is no debug information.
test: export GOGC = 400
test: export GOMEMLIMIT = 1GiB
test: packages ## run every test but those that boot a kernel (the real kernel's answers are from its last run)
	go test -short -p 4 -ldflags='-s -w' $(FLAGS) ./...

# Kernels wait more than they compute: the two parts run side by side.
test-kernel: packages ## boot a real Linux kernel and compare with its device mapper (EVERY=10: one script of ten)
	+$(MAKE) -j 2 -O kernel-answers kernel-disks

kernel-answers:
	CI=true go test $(FLAGS) -count=1 -run Kernel ./test/kernel $(SAMPLE)

kernel-disks:
	CI=true go test $(FLAGS) -count=1 -run Kernel $(PERSISTENT) ./targets/integrity ./targets/thin/thintools ./luks

test-kernel-long: packages ## the same with many random scripts, and volume groups made by lvm2 there, for hours
	CI=true go test -timeout 0 -count=1 -run Kernel ./test/kernel -kernel
	CI=true go test -timeout 0 -count=1 -run Kernel $(PERSISTENT) -kernelseeds 50
	CI=true go test -timeout 0 -count=1 -run Kernel ./lvm/...
	CI=true go test -timeout 0 -count=1 -run KernelGroups ./test/run -groups 200

PERSISTENT = ./targets/cache ./targets/clone ./targets/era ./targets/snapshot ./targets/thin ./targets/writecache

test-ublk: packages ## attach devices by the ublk drivers of three kernels: the user-mode one's is built from Debian's source once, two newer ones are fetched once, into the user's cache
	@./test/packages.sh test/kernel/packages.txt
	@./test/kernel/ublk-module.sh
	kernels=$$(for release in bookworm-security trixie-backports; do ./test/kernel/debian-kernel.sh $$release || exit; done) && \
		CI=true go test $(FLAGS) -timeout 60m -count=1 -run Ublk ./test/kernel -machines "$$kernels"

test-xfstests: packages ## run xfstests' quick tests of ext4 and xfs on udm's devices and on plain disks: attached here, and in a real kernel over vhost-user; for hours (root; XFSTESTS: the folder of its source, which is built in the user's cache)
	@./test/packages.sh test/xfstests/packages.txt
	folder=$$(./test/xfstests/build.sh $(abspath $(or $(XFSTESTS),$(error XFSTESTS=FOLDER is missing: the source of xfstests)))) && \
		CI=true go test -timeout 0 -vet=off -count=1 -v ./test/fs ./test/kernel -run Xfstests -xfstests $$folder

test-vhost: ## have QEMU boot, pause, reset and migrate a guest on the daemon's devices, and libblkio read and write them; fetches Debian's kernel and libblkio once, into the user's cache
	@./test/packages.sh test/vhost/packages.txt
	kernel=$$(./test/vhost/kernel.sh) && library=$$(./test/vhost/libblkio.sh) && \
		CI=true go test $(FLAGS) -count=1 -v ./test/vhost -kernel $$kernel -libblkio $$library

test-lvm: packages ## run lvm2's own scripts, and other programs, on udm's devices by udm run, for an hour
	CI=true go test -timeout 0 -count=1 -v ./test/run -lvm -groups 20

test-cryptsetup: packages ## open the images of LUKS disks that cryptsetup's tests ship, and run its programs and its test scripts by udm run (CRYPTSETUP: the folder of its source)
	CI=true go test $(FLAGS) -count=1 -v ./luks -run ImagesOfCryptsetup -cryptsetup $(abspath $(or $(CRYPTSETUP),$(error CRYPTSETUP=FOLDER is missing: the source of cryptsetup)))
	CI=true go test $(FLAGS) -count=1 -v ./test/run -run 'TestPrograms/(luks|integrity|verity)|TestCryptsetup' -cryptsetup $(abspath $(CRYPTSETUP))

test-dmtest: ## run dmtest-python's tests of caches on udm's devices, by dmsetup and udm dmsetup (DMTEST: the folder of its source)
	@./test/packages.sh test/run/packages.txt
	CI=true go test $(FLAGS) -count=1 -v ./test/run -run Dmtest -dmtest $(abspath $(or $(DMTEST),$(error DMTEST=FOLDER is missing: the source of dmtest-python)))

test-web: packages ## look at the daemon's page in chromium
	CI=true go test $(FLAGS) -count=1 -tags chromium ./test/web

planted: ## plant defects one by one and see that the tests find each (EVERY=10: one of ten)
	go test $(FLAGS) -count=1 ./test/sim -run PlantedDefects -planted $(SAMPLE)

# Tests of formats, crash states and failing I/O take one step after the other, and what
# others' programs do is not seen: the race detector would find nothing there in half of
# its time. They run on one processor, with the invariants that it turns on elsewhere.
STEPWISE = Fuzz|Damage|Crash|PowerCut|Fail|Killed|SpaceRunsOut|Portions|InnerNodes|AnySize|Every(Bit|Byte)|EachByte|LostSuperblock|Contents$$|Model$$|InTheSimulator|AnotherModule|Other(s|Servers)|OfNbdkit|Qemu|Thousand|CutStreams
race: export GOGC = 400
race: export GOMEMLIMIT = 2GiB
race: packages ## run the tests of the libraries under the race detector, and on one processor
	CGO_ENABLED=1 go test -race -short -p 3 $(FLAGS) -skip '$(STEPWISE)' $(RACED)
	GOMAXPROCS=1 go test -tags invariants -short -p 3 -count=1 $(FLAGS) $(RACED)

RACED = . ./env/... ./blk/... ./pdata/... ./dm/... ./targets/... ./volume/... ./lvm/... ./luks ./run/... ./export/... ./ctl/... ./udmtest

test-ceph: ## start a small Ceph cluster on 127.0.0.1: its images as disks, and streams there and back
	@./test/packages.sh test/ceph/packages.txt
	CI=true CGO_ENABLED=1 go test $(FLAGS) -count=1 -tags ceph ./test/ceph

test-fs: packages build ## real file systems on every stack: load, snapshots, killed daemons, for hours (root, loop devices)
	CI=true go test -timeout 0 -count=1 -v ./test/fs -all -times 20 -udm $(CURDIR)/bin/udm

containers: ## build what containerd and Kubernetes run, into bin
	cd containers && CGO_ENABLED=0 go build -o ../bin/ ./cmd/...

test-containers: packages ## run containerd's suite for snapshotters, csi-sanity and more, on real daemons (root, loop devices)
	cd containers && CI=true go test $(FLAGS) -count=1 ./...

test-containerd: packages ## build containerd and ctr once, into the user's cache, and unpack, kill and clean up with them
	cd containers && CI=true go test $(FLAGS) -count=1 -tags containerd ./test -unpacks 200

image: build containers ## write a container image of udm and the drivers, bin/udm-image.tar, without a container engine
	cd containers && go run ./oci/image -bin ../bin -o ../bin/udm-image.tar

MODULES = bench containers

lint: ## gofmt, tidy modules, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	go mod tidy -diff
	for module in $(MODULES); do (cd $$module && go mod tidy -diff) || exit 1; done
	go vet ./...
	for module in $(MODULES); do (cd $$module && go vet ./...) || exit 1; done
	go tool staticcheck ./...
	@if [ -f /usr/include/rbd/librbd.h ]; then \
		export CGO_ENABLED=1; \
		go vet -tags ceph $(CEPH) && go tool staticcheck -tags ceph $(CEPH); \
	fi
	staticcheck=$$(go tool -n staticcheck) && for module in $(MODULES); do (cd $$module && $$staticcheck ./...) || exit 1; done

CEPH = ./blk/rbddev ./blk/leaf ./cmd/udm ./test/ceph

cross: ## build for the other systems
	@for system in darwin/arm64 windows/amd64 linux/arm64; do \
		export GOOS=$${system%/*} GOARCH=$${system#*/}; echo "$$system"; \
		go build ./... && (cd bench && go build -o /dev/null .) || exit 1; \
	done
	cd containers && GOOS=linux GOARCH=arm64 go build ./...

bench: bin/bench ## measure udm and what one would use instead; writes bench/out (PROFILE=FILE for a CPU profile)
	./bin/bench $(if $(PROFILE),-profile $(PROFILE))

bench-quick: bin/bench ## the same in two minutes
	./bin/bench -quick $(if $(PROFILE),-profile $(PROFILE))

bench-ceph: ## measure an image of the Ceph cluster that CEPH_CONF names beside rbd bench; writes bench/out
	cd bench && CGO_ENABLED=1 go build -tags ceph -o ../bin/bench .
	./bin/bench -only rbd

bin/bench: build # a module of its own; it runs bin/udm from here
	cd bench && go build -o ../bin/bench .

sim-tiny: ## crash all sequences of up to three operations on tiny stacks after every write
	go test -count=1 -timeout 0 ./test/sim -run TinyStacks -exhaustive -v

sim: ## run seeded histories of whole stacks with power cuts, for SECONDS (60)
	go test -count=1 -timeout 0 ./test/sim -run Histories -seconds $(SECONDS) -v

fuzz: ## fuzz every parser of bytes from outside, FUZZTIME each (60s)
	@./test/fuzz.sh $(FUZZTIME)

.PHONY: bin/bench help run build build-ceph containers test-containers test-containerd image man install uninstall deb test-deb packages test test-kernel test-kernel-long test-ublk test-xfstests test-vhost test-lvm test-dmtest test-cryptsetup test-web test-ceph planted race test-fs lint cross bench bench-quick bench-ceph sim-tiny sim fuzz
