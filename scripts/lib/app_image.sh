# An application's image: Debian, packages, and files of its own, as a Dockerfile would make it. For scripts/images, which
# sets $work and $out. A folder tests/images/NAME holds:
#   packages   Debian packages, without their recommendations
#   root/      files that are laid over the root
#   finish     a script that runs in the image's root behind the installation (optional)
#   config     arguments of `umoci config`, one a line (optional)

# Debian's root, from the layer that all applications share; it is made once.
app_base() {
  local base=$out/.base
  [ -f "$base/layer.tar" ] && return
  mkdir -p "$base"
  mmdebstrap --quiet --variant=minbase bookworm "$base/new.tar"
  mv "$base/new.tar" "$base/layer.tar"
}

build_app() { # NAME
  local name=$1 recipe=tests/images/$1 dir=$work/app l=$work/app/$1 packages
  app_base
  # In memory: an overlay's upper directory takes no overlay below it, which is what a container's root is.
  mkdir -p "$dir"; mount -t tmpfs tmpfs "$dir"; mkdir -p "$dir"/{lower,upper,work,merged}
  tar -C "$dir/lower" -xf "$out/.base/layer.tar"
  mount -t overlay overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/merged"
  local root=$dir/merged conf
  mount -t proc proc "$root/proc"
  printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"; chmod +x "$root/usr/sbin/policy-rc.d"
  mv "$root/etc/resolv.conf" "$root/etc/resolv.conf.kept" 2>/dev/null || true
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  for conf in /etc/apt/apt.conf.d/*proxy*; do [ -f "$conf" ] && cp "$conf" "$root/etc/apt/apt.conf.d/99build"; done
  packages=$(tr '\n' ' ' < "$recipe/packages")
  DEBIAN_FRONTEND=noninteractive chroot "$root" sh -ec "
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-unsafe-io $packages
    apt-get clean; rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /usr/share/doc/* /usr/share/man/*" > "$dir/log" 2>&1 ||
    { tail -n 20 "$dir/log" >&2; echo "images: apt-get install $packages in the image failed" >&2; exit 1; }
  [ ! -d "$recipe/root" ] || cp -R "$recipe/root/." "$root/"
  if [ -f "$recipe/finish" ]; then chroot "$root" sh -es < "$recipe/finish"; fi
  rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf" "$root/etc/apt/apt.conf.d/99build"
  mv "$root/etc/resolv.conf.kept" "$root/etc/resolv.conf" 2>/dev/null || true
  umount "$root/proc"; umount "$root"
  python3 scripts/lib/upper_to_layer.py "$dir/upper" "$dir/layer.tar"
  umoci init --layout "$l"; umoci new --image "$l:latest"
  umoci raw add-layer --image "$l:latest" "$out/.base/layer.tar"
  umoci raw add-layer --image "$l:latest" "$dir/layer.tar"
  umoci config --image "$l:latest" --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  if [ -f "$recipe/config" ]; then
    local args=(); mapfile -t args < "$recipe/config"
    umoci config --image "$l:latest" "${args[@]}"
  fi
  publish "$name" "$l"
  umount "$dir"; rmdir "$dir"
}
