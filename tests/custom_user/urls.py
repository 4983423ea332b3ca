from django.urls import include, path

urlpatterns = [path("livefeed/", include("livefeed.urls"))]
