from django.contrib import admin
from django.urls import include, path

from tests.testapp import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("livefeed/", include("livefeed.urls")),
    path("save/", views.save, name="save"),
    path("asave/", views.asave, name="asave"),
    path("page/", views.page, name="page"),
    path("url/", views.url, name="url"),
]
