#!/usr/bin/env bash
# Installs the servers that the tests start for themselves: Redis, PostgreSQL, PgBouncer, MariaDB and a Nacos server (r-nacos),
# and the tool pt-online-schema-change (percona-toolkit), which changes MariaDB tables while they are in use.
# Where they can be had, also MySQL (on Debian; run from a folder, not installed) and gh-ost (where there is Go): the tests
# that need them say nothing where they are absent.
# Looks for the programs first, so a second run changes nothing, and needs no network where all could be had.
# r-nacos is built from source, once: that takes some minutes. With NACOS=alibaba, Alibaba's own server is fetched, too;
# the tests use it where they find the same setting.
# Neither starts nor enables a system service, so the usual ports 6379, 5432 and 3306 stay as they were.
set -euo pipefail

# Server programs are often outside the search path of an ordinary user.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

has() { command -v "$1" >/dev/null 2>&1; }

has_postgres() {
    has initdb && return
    local initdb
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$initdb" ] && return
    done
    has pg_config && [ -x "$(pg_config --bindir)/initdb" ]
}

# Where the tests look for what is not in the search path.
tools="${XDG_CACHE_HOME:-$HOME/.cache}/grey-router/tools"

# The tests also look for it in GREY_RNACOS and PATH.
rnacos_version=0.8.8
rnacos_root="$tools/rnacos-$rnacos_version"

install_rnacos() {
    [ ! -x "${GREY_RNACOS:-}" ] || return 0
    has rnacos && return
    [ ! -x "$rnacos_root/bin/rnacos" ] || return 0
    if ! has cargo; then
        echo "install-servers: cargo is missing, which builds the Nacos server: install Rust from https://rustup.rs" >&2
        exit 1
    fi
    echo "building the Nacos server r-nacos $rnacos_version from source, once: this takes 5 to 10 minutes on 2 cores"
    local build
    build="$(mktemp -d)"
    # A directory of its own, removed after: more than a gigabyte that nothing else uses.
    if ! CARGO_TARGET_DIR="$build" cargo install rnacos --version "$rnacos_version" --locked --root "$rnacos_root"; then
        rm -rf "$build"
        echo "install-servers: building r-nacos failed" >&2
        exit 1
    fi
    rm -rf "$build"
}

# Alibaba's own server, in Java: only for NACOS=alibaba, which makes the tests use it.
install_alibaba_nacos() {
    local folder="$tools/nacos-3.1.0" source
    [ ! -f "$folder/grey/Launcher.class" ] || return 0
    source="$(cd "$(dirname "${BASH_SOURCE[0]}")/nacos" && pwd)"
    mvn --batch-mode --quiet --file "$source/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder/lib"
    # Two libraries share names, and the server needs both: Caucho's has to be found first.
    mkdir -p "$folder/first"
    mv "$folder"/lib/hessian-4.*.jar "$folder/first/"
    javac -cp "$folder/first/*:$folder/lib/*" -d "$folder" "$source/Launcher.java"
    echo "Alibaba's Nacos is installed"
}

# The tool gh-ost, which changes tables of MySQL while they are in use. Takes a minute.
gh_ost_version=1.1.8
install_gh_ost() {
    local folder="$tools/gh-ost-$gh_ost_version" build package=github.com/github/gh-ost
    [ ! -x "${GREY_GH_OST:-$folder/gh-ost}" ] || return 0
    if ! has go; then
        echo "install-servers: gh-ost is left out, as there is no Go to build it: its tests have nothing to run" >&2
        return 0
    fi
    echo "building gh-ost $gh_ost_version from source, once: this takes about a minute"
    build="$(mktemp -d)"
    printf 'module tools\n\ngo 1.22\n\nrequire %s v%s\n' "$package" "$gh_ost_version" >"$build/go.mod"
    if (cd "$build" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o gh-ost "$package/go/cmd/gh-ost") &&
        go version -m "$build/gh-ost" | grep -q "$package[[:space:]]*v$gh_ost_version"; then
        mkdir -p "$folder"
        mv "$build/gh-ost" "$folder/gh-ost"
    else
        echo "install-servers: gh-ost $gh_ost_version could not be built: its tests have nothing to run" >&2
    fi
    rm -rf "$build"
}

# MySQL's server. Debian has it in its unstable release only, made for newer libraries than others have: it is unpacked
# with its libraries into a folder of its own, and nothing of this system changes.
install_mysql() {
    local folder="$tools/mysql" build mirror key
    [ ! -x "${GREY_MYSQLD:-$folder/bin/mysqld}" ] || return 0
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    if has apt-get && [ -f "$key" ]; then
        # The mirror that this system uses for itself.
        # shellcheck disable=SC2016 # apt-get fills these in
        mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' 'Label: Debian' |
            sed -n 1p || true)"
    fi
    if [ -z "${mirror:-}" ]; then
        echo "install-servers: MySQL is left out, which is had from Debian only: its tests have nothing to run" >&2
        return 0
    fi
    echo "unpacking MySQL and its libraries, once: 85 MB are fetched"
    build="$(mktemp -d)"
    if unpack_mysql "$build" "$mirror" "$key" >"$build/log" 2>&1 && "$build/root/bin/mysqld" --version; then
        rm -rf "$folder"
        mkdir -p "$tools"
        mv "$build/root" "$folder"
    else
        tail -n 3 "$build/log" >&2
        echo "install-servers: MySQL could not be had: its tests have nothing to run" >&2
    fi
    rm -rf "$build"
}

unpack_mysql() {
    local build="$1" mirror="$2" key="$3" package options
    mkdir -p "$build/lists/partial" "$build/cache/archives/partial" "$build/root/bin"
    echo "deb [signed-by=$key] $mirror sid main" >"$build/sources.list"
    : >"$build/status"
    options=(-o "Dir::Etc::SourceList=$build/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
        -o "Dir::State::Lists=$build/lists" -o "Dir::State::Status=$build/status" -o "Dir::Cache=$build/cache"
        -o APT::Sandbox::User= -o Debug::NoLocking=1)
    apt-get "${options[@]}" update || return 1
    apt-get "${options[@]}" install --yes --download-only --no-install-recommends mysql-server-core || return 1
    for package in "$build"/cache/archives/*.deb; do
        case "${package##*/}" in
        perl* | libperl*) ;;
        *) dpkg -x "$package" "$build/root" || return 1 ;;
        esac
    done
    rm -rf "$build"/root/usr/share/{man,doc,locale,icu}
    # It runs with the libraries beside it, wherever the folder is.
    cat >"$build/root/bin/mysqld" <<'MYSQLD'
#!/bin/sh
root="$(dirname "$(dirname "$0")")"
libraries="$(dirname "$(ls "$root"/usr/lib/*/libcrypto.so.3)")"
exec "$(ls "$libraries"/ld-linux*)" --library-path "$libraries" "$root/usr/sbin/mysqld" "$@" \
    --lc-messages-dir="$root/usr/share/mysql" --character-sets-dir="$root/usr/share/mysql/charsets" \
    --plugin-dir="$root/usr/lib/mysql/plugin"
MYSQLD
    chmod 755 "$build/root/bin/mysqld"
}

missing() {
    { has redis-server && has redis-cli; } || echo redis-server
    has_postgres || echo postgresql
    has pgbouncer || echo pgbouncer
    { has mariadbd && has mariadb && has mariadb-install-db; } || echo mariadb-server
    has pt-online-schema-change || echo percona-toolkit
    if [ "${NACOS:-}" = alibaba ]; then
        has javac || echo openjdk-17-jdk-headless
        has mvn || echo maven
    fi
}

install_rnacos
install_gh_ost
install_mysql

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -eq 0 ]; then
    [ "${NACOS:-}" != alibaba ] || install_alibaba_nacos
    echo "redis, postgresql, pgbouncer, mariadb, percona-toolkit and r-nacos are installed"
    exit 0
fi

if ! has apt-get; then
    echo "install-servers: missing: ${packages[*]}; there is no apt-get on this machine." >&2
    echo "Install Redis 6.2+, PostgreSQL 13+, PgBouncer and MariaDB 10.6+ with its package manager, so that redis-server," >&2
    echo "redis-cli, initdb (or pg_config), pgbouncer, mariadbd, mariadb, mariadb-install-db and pt-online-schema-change (Percona Toolkit)" >&2
    echo "are found, and run this again." >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! has sudo; then
        echo "install-servers: run this as root, or install sudo: missing: ${packages[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Debian asks this file whether an installed service may start; 101 forbids it. One that exists is somebody's own choice.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

was_enabled() { has systemctl && systemctl is-enabled --quiet "$1" 2>/dev/null; }
services=(redis-server postgresql pgbouncer mariadb)
disable=()
for service in "${services[@]}"; do
    was_enabled "$service" || disable+=("$service")
done

"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"

# Installing enables the services for the next boot; those that were not enabled before stay so.
for service in "${disable[@]}"; do
    if was_enabled "$service"; then
        "${as_root[@]}" systemctl disable --quiet "$service"
    fi
done

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -ne 0 ]; then
    echo "install-servers: apt-get succeeded, but these are still not found: ${packages[*]}" >&2
    exit 1
fi
[ "${NACOS:-}" != alibaba ] || install_alibaba_nacos
echo "redis, postgresql, pgbouncer, mariadb, percona-toolkit and r-nacos are installed"
