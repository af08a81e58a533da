# The image of sentry-mirror: the program, the libraries it needs, certificates, and nothing else.
#
#   docker build -t sentry-mirror \
#       --build-arg COMMIT=$(git rev-parse HEAD) --build-arg CREATED=$(date -u +%FT%TZ) .
#   docker build --target symbols --output symbols .      # the symbols of the same program
#
# There is no shell in it and no package manager. It runs as a user of its own, because locked memory,
# which io_uring needs on some kernels, is counted for each user over all containers of a host.

# Any Debian will do that has Rust 1.95 or newer, a C compiler, binutils and ca-certificates. The final
# image gets its libraries and its certificates.
ARG RUST_IMAGE=rust:1.95-slim-bookworm

# The version that the label tells. A build for another version than the sources have is a mistake.
ARG VERSION=0.1.0

FROM ${RUST_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build

# Dependencies come first, with a program that does nothing: this layer is made anew only when they
# change. `--locked` takes the versions of Cargo.lock or fails. The manifest names tests and benches,
# whose files are not here; these sections are cut out, each up to the next empty line.
COPY Cargo.toml Cargo.lock ./
RUN sed -Ei '/^\[\[(test|bench|example)\]\]/,/^$/d' Cargo.toml; \
    mkdir src; \
    touch src/lib.rs; \
    echo 'fn main() {}' | tee build.rs >src/main.rs; \
    cargo build --release --locked

COPY build.rs config.example.yml ./
COPY src ./src

# The commit that --version names. The files are younger in here than what was built in their place.
ARG COMMIT=""
RUN find build.rs src -type f -exec touch {} +; \
    SENTRY_MIRROR_COMMIT=$COMMIT cargo build --release --locked; \
    mkdir -p /symbols; \
    objcopy --only-keep-debug target/release/sentry-mirror /symbols/sentry-mirror.debug; \
    objcopy --strip-all --add-gnu-debuglink=/symbols/sentry-mirror.debug \
        target/release/sentry-mirror sentry-mirror

# The licences of the program, and of the crates that it is linked with.
COPY LICENSE-APACHE LICENSE-MIT ./
COPY deploy/third-party ./deploy/
RUN mkdir -p /image/usr/share/doc/sentry-mirror; \
    cp LICENSE-APACHE LICENSE-MIT /image/usr/share/doc/sentry-mirror/; \
    deploy/third-party >/image/usr/share/doc/sentry-mirror/THIRD-PARTY

ARG VERSION
RUN version=$(./sentry-mirror --version | cut -d' ' -f2); \
    [ "$VERSION" = "$version" ] || { echo "VERSION is $VERSION, the sources are $version"; exit 1; }

# The file system of the image. Scanners know the packages by the files below status.d.
RUN mkdir -p /image/opt /image/etc/ssl/certs /image/var/lib/dpkg/status.d /image/usr/share/doc; \
    ldd sentry-mirror | grep -o '/[^ ]*' | xargs cp --dereference --parents -t /image; \
    cp --dereference /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    for package in libc6 libgcc-s1 ca-certificates; do \
        dpkg-query --status "$package" >"/image/var/lib/dpkg/status.d/$package"; \
        cp --dereference --parents "/usr/share/doc/$package/copyright" /image; \
    done; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    echo 'mirror:x:10345:10345::/nonexistent:/sbin/nologin' >/image/etc/passwd; \
    echo 'mirror:x:10345:' >/image/etc/group; \
    cp sentry-mirror /image/opt/

FROM scratch AS symbols
COPY --from=build /symbols /

FROM scratch
COPY --from=build /image /

ARG VERSION
ARG COMMIT=""
ARG CREATED=""
LABEL org.opencontainers.image.title="sentry-mirror" \
      org.opencontainers.image.description="Mirrors Sentry SDK traffic from one DSN to several, one io_uring runtime per core" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}"

USER 10345:10345
EXPOSE 3000
STOPSIGNAL SIGTERM

# Here config.yml, which is read where no -c is given, is /opt/config.yml. The name of the program may
# be repeated after that of the image: `docker run … sentry-mirror /opt/sentry-mirror -c …`.
WORKDIR /opt
ENTRYPOINT ["/opt/sentry-mirror"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/sentry-mirror", "health"]
