"""Networks as the papers' authors built and counted them: only what regenerates printed costs needs them.

Importing this package lets `backbones.build` know them.
"""

from dynlib.backbones import register
from dynlib.book.zoo import gluon_mobilenet, gluon_resnet, preact_resnet, video_resnet

for _file in (gluon_mobilenet, gluon_resnet, preact_resnet):
    register(_file.MODELS)
register(video_resnet.MODELS, clips=True)
