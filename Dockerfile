# The binary alone, in an image of its own size.
#
# As the base of nothing, copied into the image that has your app:
#
#   FROM python:3-slim
#   COPY --from=simple-artifact-server /simple-artifact-server /usr/local/bin/
#   WORKDIR /app
#   ENTRYPOINT ["simple-artifact-server", "--command", "python3 app.py"]
#
# or, for an app that is a static binary too, FROM this image.
#
# NOT YET RUN in a container engine. The static build that was
# measured there is scripts/size (gnu target, crt-static); these musl stages are unproven.

FROM rust:1-alpine AS builder
# Beyond the default ones: docker build --build-arg FEATURES=redis .
ARG FEATURES=""
RUN apk add --no-cache musl-dev
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY src src
RUN cargo build --release --locked --bin simple-artifact-server --features "$FEATURES"

FROM scratch
COPY --from=builder /build/target/release/simple-artifact-server /simple-artifact-server
# Not root: --child-user cannot work like this. See docs/security.md for the variant that is.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/simple-artifact-server"]
