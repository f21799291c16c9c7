# Build the images tequio, tequio-coordinator and tequio-participant, tagged with the version: sh deploy/build.sh [tag]
# Before: docker with BuildKit (23 or newer), or podman as DOCKER=podman; and a network for Python's packages.
# GPU: TORCH_INDEX=https://download.pytorch.org/whl/cu126 sh deploy/build.sh. Each image prints its version at the end, as a check.
set -eu
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/tequio/__init__.py)
tag=${1:-$version}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
test -n "$version"
for target in coordinator participant tequio; do
  image=tequio-${target#tequio}
  image=${image%-}:$tag
  "$docker" build -f deploy/docker/Dockerfile --target "$target" --build-arg "TORCH_INDEX=$index" \
    --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.licenses=Apache-2.0" \
    -t "$image" .
  built=$("$docker" run --rm --read-only --tmpfs /tmp --network none "$image" --version)
  test "$built" = "$version" || { echo "$image says version $built, expected $version" >&2; exit 1; }
  echo "$image"
done
